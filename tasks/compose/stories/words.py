"""The words of the stories, the commoner ones first. A place in a list decides an id: only append.

No word is in two lists.
"""

from itertools import chain


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


OTHERS = _listed(
    """
    . ? , the and was had in to once were a wanted so where it he she who went back saw missed
    took gave dropped still
    """
)
GLAD = _listed(
    """
    happy glad merry proud cheerful joyful content pleased
    """
)
SAD = _listed(
    """
    sad sorry upset unhappy gloomy tearful lonely cross
    """
)
PRONOUNS = ("he", "she")
"""Of a boy, of a girl."""

GIRLS = _listed(
    """
    mia anna lily emma zoe ella lucy sara nora ruby ivy clara rosa alice maya eva julia hanna
    nina leah tara molly daisy greta flora hazel irene jane kate laura maria nadia olga paula
    rita sonia tina uma vera wanda yara abby bella cora dora edith fiona gina helga inga jenny
    karen lena mona nelly opal penny quilla rhea stella thea ursula vivian wilma xenia yvonne
    zelda agnes bertha carla della
    """
)
BOYS = _listed(
    """
    tom ben max sam leo jack finn noah paul adam luke oscar felix hugo theo peter simon david
    erik frank george henry ivan jonas karl liam mark nick otto philip quentin robert steve
    timothy ulf victor walter xaver yusuf zack arthur boris carlo dennis edgar fred gustav
    harry igor james kevin lewis martin neil oliver pablo ralph stan tobias umberto vincent
    will yann zeno albert bruno clemens dorian emil fabian gregor
    """
)
NAMES = tuple(chain.from_iterable(zip(GIRLS, BOYS, strict=True)))
PLACES = _listed(
    """
    garden forest park kitchen school house market river beach barn meadow cave village attic
    cellar yard street station library castle tower bridge lake island mountain valley farm
    stable bakery shop museum theatre harbour field orchard hall hut mill mine tent tunnel
    temple church palace prison square zoo circus desert swamp jungle canyon cliff cottage
    court factory fort hospital hotel inn lighthouse nursery office pond playground port pub
    quarry shed shore stadium studio subway terrace tavern town vineyard workshop airport
    arcade balcony bank camp cabin chapel closet college corner hill gallery
    """
)
LOOKS = _listed(
    """
    red blue big small great new green yellow little white black brown pretty shiny soft tiny
    round heavy broken golden silver purple pink violet grey wooden long short clean dirty
    warm cold dry wet smooth rough thick thin sharp dull
    """
)
THINGS = _listed(
    """
    ball doll book hat cake apple kite cup box key lamp shoe coat spoon bell drum flute toy
    boat train car ring coin stone stick rope basket bucket blanket pillow chair table clock
    mirror brush comb pen pencil map letter card picture flag mask crown sword shield bow
    arrow hammer nail chisel axe shovel rake broom mop pot pan plate bowl fork knife bottle
    jar jug glass candle match torch lantern ladder wheel cart sled skate bike scooter balloon
    bubble whistle trumpet violin guitar piano harp horn radio camera phone watch necklace
    bracelet button ribbon scarf glove sock boot shirt dress skirt belt purse bag backpack
    suitcase umbrella raincoat cap helmet bread cheese egg honey jam cookie pie carrot potato
    tomato onion pear plum peach cherry grape lemon melon banana nut seed flower rose tulip
    leaf branch feather shell pearl diamond rock brick tile board plank wire chain hook needle
    thread yarn cloth carpet curtain towel soap sponge toothbrush cushion sofa bench stool
    shelf drawer cupboard chest barrel crate sack net rod anchor sail paddle compass telescope
    puzzle domino marble puppet robot teddy block lute banjo cello rattle wagon tractor bus
    truck plane rocket canoe raft sandal slipper mitten apron vest cloak veil muffin waffle
    pretzel cracker noodle pepper turnip pumpkin cabbage lettuce raisin walnut acorn pebble
    coral quilt hammock kettle teapot tray mug ladle sieve
    """
)
