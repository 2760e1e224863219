"""HMM topologies, in the text format of Kaldi's ``topo`` files."""

from __future__ import annotations

from collections.abc import Sequence


def topology_text(phones: Sequence[int], silence_phones: Sequence[int], silence_classes: int) -> str:
    """Left-to-right topologies: three emitting states for every phone that is spoken.

    Args:
        phones: ids of all phones.
        silence_phones: those of them that are silence or noise.
        silence_classes: 3 or 5, the states of a silence phone differ (how a pause begins, goes on and ends), and
            no silence is shorter than 30 or 50 ms; 1, three states share one class, so that a frame of silence
            has one right answer.

    Raises:
        ValueError: another number of classes.
    """
    if silence_classes not in (1, 3, 5):
        raise ValueError(f"silence has 1, 3 or 5 classes, not {silence_classes}")
    speech = [p for p in phones if p not in set(silence_phones)]
    silence = [min(state, silence_classes - 1) for state in range(max(3, silence_classes))]
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
