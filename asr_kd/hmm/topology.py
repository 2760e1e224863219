"""HMM topologies, in the text format of Kaldi's ``topo`` files."""

from __future__ import annotations

from collections.abc import Sequence


def topology_text(phones: Sequence[int], silence_phones: Sequence[int], silence_classes: int) -> str:
    """Left-to-right topologies with three emitting states for every phone.

    Args:
        phones: ids of all phones.
        silence_phones: those of them that are silence or noise.
        silence_classes: 3, the states of a silence phone differ: how a pause begins, goes on and ends; 1, they
            share one class (so that a frame of silence has one right answer) and only keep a silence from being
            shorter than 30 ms.

    Raises:
        ValueError: another number of classes.
    """
    if silence_classes not in (1, 3):
        raise ValueError(f"silence has 1 or 3 classes, not {silence_classes}")
    speech = [p for p in phones if p not in set(silence_phones)]
    silence = [min(state, silence_classes - 1) for state in range(3)]
    return f"<Topology>\n{_entry(speech, [0, 1, 2])}{_entry(silence_phones, silence)}</Topology>\n"


def _entry(phones: Sequence[int], pdf_classes: Sequence[int]) -> str:
    if not phones:
        return ""
    lines = ["<TopologyEntry>", f"<ForPhones> {' '.join(map(str, phones))} </ForPhones>"]
    for state, pdf_class in enumerate(pdf_classes):
        arcs = f"<Transition> {state} 0.75 <Transition> {state + 1} 0.25"
        lines.append(f"<State> {state} <PdfClass> {pdf_class} {arcs} </State>")
    lines += [f"<State> {len(pdf_classes)} </State>", "</TopologyEntry>", ""]
    return "\n".join(lines)
