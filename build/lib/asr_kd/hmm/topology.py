"""HMM topologies, in the text format of Kaldi's ``topo`` files."""

from collections.abc import Sequence


def topology_text(phones: Sequence[int], silence_phones: Sequence[int], silence_classes: int) -> str:
    """Return left-to-right topologies, with three emitting states for each speech phone.

    Args:
        phones: ids of all phones.
        silence_phones: ids of the silence and noise phones among them.
        silence_classes: number of pdf-classes of a silence phone.  With 3 or 5, each of its states has a class of its
            own (for the beginning, middle and end of a pause), and silence lasts at least 30 or 50 ms.  With 1, its
            three states share one class, so that all frames of silence have the same label.

    Raises:
        ValueError: ``silence_classes`` is not 1, 3 or 5.
    """
    if silence_classes not in (1, 3, 5):
        raise ValueError(f"silence has 1, 3 or 5 pdf-classes, not {silence_classes}")
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
