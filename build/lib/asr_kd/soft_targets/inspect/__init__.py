"""The stage that shows what a store of soft targets contains."""
