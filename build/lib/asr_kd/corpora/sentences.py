"""Sentences of the embedded corpus: a template grammar with a closed vocabulary of about 1,500 words.

The words are common, and many are confusable (SHIP, SHEEP, CHIP, CHEAP; COAT, GOAT, BOAT, NOTE).  Each slot draws from
a shuffled deck, so all words are about equally frequent, and context hardly predicts the next noun or name: the
acoustic model has to discriminate.
"""

import random
import re
from collections.abc import Iterator


def _words(text: str) -> list[str]:
    return text.split()


PEOPLE = _words("""artist baker banker barber builder butcher captain carpenter child clerk coach colonel cook cousin
 dancer daughter dealer dentist doctor driver editor engineer farmer father fisher friend gardener general
 governor guard guest hunter judge king lady lawyer leader maid major manager mayor mother neighbor nurse
 officer owner painter partner pastor pilot player poet porter preacher prince printer prisoner prophet
 pupil queen reader ruler sailor scholar servant singer sister soldier stranger student tailor teacher
 tenant trader traveler tutor uncle visitor waiter walker winner worker writer""")
THINGS = _words("""apple bag ball basket bean bear bed bee beer bell bill bird boat book boot bottle bowl box bread
 bridge bucket bug bullet button cake candle cap car card carpet cart cat chain chair cheek chip clock cloth
 coat coin cord cork cot cow crown cup curtain desk dish dog doll door drum duck engine feather fence fig
 file flag flower fork fox gate glove goat gun hammer hat hen hook horn horse hose jar jewel kettle key kite
 ladder lamp lap lemon letter lid lock log map mask match meal melon mirror mop nail neck needle nest net
 note nut oven paddle page pail pan paper peach pear pen pencil pepper picture pie pig pill pin pipe plate
 plow pocket pot potato purse rabbit rack rag rat ribbon ring rod roof rope rug sack sail seal seat seed
 sheet shell ship shirt shoe sock spoon spot stamp stick stone stool stove sword table tail tent thread
 tie tile tool top towel toy train tray tree tub vase wagon wheel whip window wire wool""")
PLACES = _words("""airport attic bank barn bay beach camp canyon castle cave cellar chapel church city coast college
 corner cottage court creek dock factory farm field forest garden garage hall harbor hill hospital hotel house
 island kitchen lake lane market meadow mill mine mountain museum office orchard palace park path pier pond
 pool port prison river road school shed shop shore square stable station street studio temple theater tower
 town tunnel valley village wall wharf yard""")
VERBS = _words("""answer borrow burn call carry clean collect cover deliver discover doubt enjoy examine fetch
 fill fix follow gather handle help hire hunt kick lift lock love measure mention mix need offer open order pack
 paint pass paste pick place praise press protect push raise remember repair return roll save search serve share
 smell study taste touch trade trust turn use visit want wash watch wipe""")
MOVES = _words("""appear climb crawl dance dream escape fail fish hurry jump laugh listen march move pause play
 pray rest sail shout sink sleep smile sneeze stay stumble swim talk vanish wait walk wander whisper work""")
IRREGULAR = {"sink": "sank", "sleep": "slept", "swim": "swam"}
ADJECTIVES = _words("""angry ancient bad bare big bitter black blind blue bold brave bright broken brown busy calm
 careful cheap clean clear clever cold common cool crazy cruel curious damp dark dear deep dirty dry dull dusty
 eager early easy empty fair faint famous fancy fast fat fine firm flat fresh full funny gentle glad golden
 grand gray great green happy hard heavy hollow honest hot humble hungry idle jolly keen kind large late lazy
 light little lonely long loose loud low lucky mad mean merry mild narrow neat new nice noble noisy odd old
 orange pale patient plain pleasant plump polite poor pretty proud pure purple quick quiet rare raw ready red
 rich rigid ripe rough round royal rude rusty sad safe sharp shy sick silent silly silver simple sleepy slim
 slow small smart smooth soft solid sore sour steady steep stiff strange strict strong sweet swift tall tame
 tender thick thin thirsty tidy tight tiny tired tough ugly useful usual vast violet warm weak wealthy weary
 wet white wicked wide wild wise worthy yellow young""")
ADVERBS = _words("""again almost badly boldly bravely calmly carefully clearly easily firmly gently gladly happily
 hardly honestly loudly neatly nearly never often often once partly politely poorly proudly quickly quietly
 rarely really safely seldom sharply shortly silently slowly softly soon suddenly surely sweetly twice
 usually warmly wisely""")
NAMES = _words("""adam alice alan amy andrew anna barry ben betty bill bob brian carl carol chris clara claire dan
 david dawn dean diane don dora doris ed ellen eric erin ethan eva evan fay frank fred gary george gina
 grace greg hannah harry heather helen henry ian irene jack jane jean jerry jill jim joan joe john judy julia
 karen kate keith kelly ken kevin kim larry laura lee leo linda lisa lucy luke marie mark martha mary
 matt max megan mike molly nancy neil nick nina nora oscar otto pam pat paul peggy pete philip rachel ralph
 ray rita robin ron rose roy ruth ryan sally sam sarah scott sean simon sophie stella steve sue susan ted
 terry tim tina todd tom tony vera victor walter wendy will""")
TOWNS = _words("""america athens austin berlin boston brazil canada chicago china cuba dallas denver detroit dover
 dublin egypt england france geneva georgia greece india ireland italy japan kansas kenya korea lima london
 madrid maine memphis mexico miami moscow nevada norway ohio oregon paris peru poland rome russia scotland
 spain sweden sydney texas tokyo turkey utah venice vienna wales""")
NUMBERS = _words("""two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
 seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand""")
TIMES = _words("""monday tuesday wednesday thursday friday saturday sunday january february march april may june july
 august september october november december""")
FOODS = _words("""bacon barley beef bread butter cheese cider coal coffee corn cotton cream fish flour fruit garlic
 gold grass gravel hay honey ice ink iron juice leather lime meat milk mud oil paint pork rice rubber salt
 sand silk smoke snow soap soup steam steel straw sugar tea tobacco water wax wheat wine wood""")
PREPOSITIONS = _words("""above across after against along around at before behind below beneath beside beyond by for
 from in inside into near on over past through to toward under with without""")
DETERMINERS = _words("the the the a her his my our their your this that every each another some")
MANY = _words("the the these those many several few most both all our their")
PRONOUNS = _words("he she it we they you i")
MODALS = _words("can could may might must shall should will would")
WONDER = _words("why when where how")
OPINIONS = _words("""think thought believe believed know knew hope hoped say said fear feared hear heard guess
 guessed feel felt suppose supposed""")

#: ``{slot}`` draws a word, ``{slot?}`` with probability 1/2; a comma is a pause that transcripts do not have.
TEMPLATES = """
THE {adjective?} {person} {past} {determiner} {adjective} {thing} {preposition} THE {place}
{name} AND {name} {past} {number} {adjective?} {things} IN {town}
{wonder} DID {determiner} {person} {verb} {determiner} {adjective?} {thing} {preposition} {town}
THE {people} OF {town} {adverb} {verb} {food} AND {food}
IF {name} {verbs} THE {thing}, {pronoun} {modal} {verb} {determiner} {adjective} {thing}
{pronoun} {modal} {adverb} {verb} {many} {adjective} {things}
ON {time} THE {adjective} {person} {moved} {preposition} THE {place}
{determiner} {person} WAS {adverb} {verbing} {food} {preposition} {determiner} {adjective?} {place}
{many} {people} WERE {moving} {adverb?} {preposition} THE {adjective} {place}
PLEASE {verb} THE {thing} AND THE {thing} {preposition} {time}
{name} {opinion} THAT {determiner} {thing} WAS {adjective} AND {adjective}
{pronoun} {opinion} {name} {past} {determiner} {person} IN {time}
THERE ARE {number} {things} AND {number} {things} {preposition} {determiner} {place}
IS THE {adjective} {thing} {preposition} THE {place} OR THE {place}
{name} {modal} {move} {preposition} {town}, BUT {name} {modal} NOT
{food} IS {adjective}, AND {food} IS {adjective?} TOO
{number} {people} {moved} {preposition} {town} LAST {time}
NO {person} {modal} {verb} SO {adjective} A {thing} {adverb}
{verbing} {things} IS {adjective} FOR {determiner} {person}
WHO {past} THE {food} THAT {name} {past}
{determiner} {person} {verbs} {determiner} {adjective?} {thing} EVERY {time}
SHE {verbs} {food}, AND HE {verbs} {food}
NOBODY {verbs} THE {adjective} {person} OF {town}
{name} {verbs} {things} WITHOUT {verbing} {determiner} {thing}
{pronoun} NEVER {past} {food} {preposition} {place}, SAID {name}
THE {place} {preposition} {town} HAS {number} {adjective} {things}
{adverb}, {name} {past} {many} {adjective?} {things} AND {moved}
DO NOT {verb} {determiner} {adjective} {thing} {preposition} {determiner} {person}
{name} IS {adjective?} {verbing} {determiner} {thing}, WHILE {name} IS {moving}
WHAT {adjective} {people} {verb} IS {adjective} {food}
{determiner} {adjective} {thing} AND {determiner} {adjective} {thing} BELONG TO {name}
""".strip().splitlines()


def with_s(word: str) -> str:
    """Plural of a noun, or third person of a verb."""
    if word == "potato" or re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    if word == "child":
        return "children"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


def with_ed(word: str) -> str:
    """Past tense of a verb."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("e"):
        return word + "d"
    return word[:-1] + "ied" if re.search(r"[^aeiou]y$", word) else word + "ed"


def with_ing(word: str) -> str:
    """Present participle of a verb."""
    if word == "swim":
        return "swimming"
    return (word[:-1] if re.search(r"[^e]e$", word) else word) + "ing"


SLOTS: dict[str, list[str]] = {
    "person": PEOPLE, "people": [with_s(w) for w in PEOPLE], "thing": THINGS, "things": [with_s(w) for w in THINGS],
    "place": PLACES, "verb": VERBS, "verbs": [with_s(w) for w in VERBS], "past": [with_ed(w) for w in VERBS],
    "verbing": [with_ing(w) for w in VERBS], "move": MOVES, "moved": [with_ed(w) for w in MOVES],
    "moving": [with_ing(w) for w in MOVES], "adjective": ADJECTIVES, "adverb": ADVERBS, "name": NAMES,
    "town": TOWNS, "number": NUMBERS, "time": TIMES, "food": FOODS, "preposition": PREPOSITIONS,
    "determiner": DETERMINERS, "many": MANY, "pronoun": PRONOUNS, "modal": MODALS, "wonder": WONDER,
    "opinion": OPINIONS,
}  # fmt: skip


def vocabulary() -> set[str]:
    """All words of the sentences, in upper case."""
    fixed = {word.strip(",") for template in TEMPLATES for word in template.split() if "{" not in word}
    return fixed | {word.upper() for words in SLOTS.values() for word in words}


def sentences(seed: int) -> Iterator[str]:
    """Yield different sentences without end, in upper case, with commas for pauses."""
    generator = random.Random(f"sentences {seed}")
    decks: dict[str, list[str]] = {}
    seen: set[str] = set()

    def draw(slot: str, words: list[str]) -> str:
        if not decks.get(slot):
            decks[slot] = generator.sample(words, len(words))
        return decks[slot].pop()

    def fill(match: re.Match[str]) -> str:
        if match[2] and generator.random() < 0.5:
            return ""
        return draw(match[1], SLOTS[match[1]]).upper()

    while True:
        sentence = re.sub(r"\{(\w+)(\??)\}", fill, draw("template", TEMPLATES))
        sentence = " ".join(sentence.replace(" ,", ",").split())
        transcript = sentence.replace(",", "")
        if transcript not in seen:
            seen.add(transcript)
            yield sentence
