"""A bundle in the browser: a page with a microphone, a WebSocket for streams, REST for files.  Needs no torch."""
