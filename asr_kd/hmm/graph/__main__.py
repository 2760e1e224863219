"""``python -m asr_kd.hmm.graph``: compiles the decoding graph HCLG."""

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage, atomic_open, copy_file, write_json
from asr_kd.hmm.graph.config import Config


def main(config: Config) -> None:
    stage = Stage("graph", config.out, config, [config.lang, config.gmm])
    if not stage.begin():
        return
    from asr_kd.hmm.graph.build import compile_hclg, pronunciation_table
    from asr_kd.hmm.graph.slots import slot_table
    from asr_kd.hmm.kaldi_io import read_nodes, read_transition_model, read_tree
    from asr_kd.hmm.new_words import write_slots
    from asr_kd.hmm.viterbi import Transitions
    from asr_kd.lang.folder import Lang, symbol_table
    from asr_kd.lang.fst import write_fst
    from asr_kd.models.senones import tree_identity

    lang, model = Lang.load(config.lang), read_transition_model(config.gmm / "tri.mdl")
    hclg, slots, figures = compile_hclg(
        lang,
        read_tree(config.gmm / "tree"),
        model,
        transition_scale=config.transition_scale,
        self_loop_scale=config.self_loop_scale,
    )
    write_fst(config.out / "HCLG.fst", hclg)
    with atomic_open(config.out / "words.txt") as file:
        file.write(symbol_table(lang.words))
    write_json(config.out / "pronunciations.json", pronunciation_table(lang, Transitions.of(model)))  # decode --times
    if slots:  # decode --words
        nodes = read_nodes(config.gmm / "tree")
        write_slots(slot_table(lang, nodes, Transitions.of(model), slots, config.self_loop_scale), config.out)
    copy_file(config.lang / "lm.arpa", config.out / "lm.arpa")  # decode --rescore takes its weights out
    sizes = {name: figures[name] for name in ("num_pdfs", "silence_pdfs", "states", "arcs")}
    write_json(config.out / "graph.json", {**sizes, "senones": tree_identity(config.gmm), "text": lang.case})
    stage.finish(**figures)


if __name__ == "__main__":
    run(Config, main)
