"""Questions of the built-in dialogues with long answers, 8 to 15 s: stories, lists and explanations.

An answer of two seconds ends soon after it is interrupted, whether the agent listens or not. These go on long enough to tell.
`|` marks where a speaker may pause.
"""

from __future__ import annotations

STORIES = [
    ("Tell me a story | about a wolf.",
     "A hungry wolf came down from the forest in the snow. He asked an old farmer for a warm place to sleep. The "
     "farmer opened the barn, and the wolf guarded his cows all winter."),
    ("Tell me a story | about a frog.",
     "A little frog lived in a quiet pond and wanted to see the ocean. She asked a bird to carry her over the hills. "
     "When she saw the water, she said that her pond was bigger."),
    ("Tell me a story | about a robot.",
     "A small robot worked in a library and counted books all day. One night he opened a book and began to read. In "
     "the morning he had forgotten to count, and he was happy."),
    ("Tell me a story | about a sailor.",
     "A sailor lost his way in a storm and saw a light far away. He sailed toward it for two days and two nights. It "
     "was the window of his own kitchen, where his wife was waiting."),
    ("Please tell me | how the bear | lost her hat.",
     "The bear had a red hat that she wore every summer. One windy morning it flew over the river and landed on a "
     "camel. The camel liked it so much that the bear let him keep it."),
    ("Please tell me | how the farmer | met the dragon.",
     "The farmer found an egg in his field that was as big as a chair. He kept it warm beside the stove for a month. "
     "Then a young dragon came out and asked him politely for some milk."),
    ("Do you know | a story | about the moon?",
     "Once a mouse believed that the moon was made of cheese. She built a long ladder out of spoons and climbed up "
     "every evening. She never arrived, but from up there she saw the whole world."),
    ("Do you know | a story | about a teacher?",
     "A teacher asked her class to bring the most useful thing they owned. One child brought a hammer, another brought "
     "a pencil. The last one brought her grandmother, and everybody agreed that she had won."),
]  # fmt: skip

LONG_LISTS = [
    ("List all the months | of the year.",
     "January, February, March, April, May, June, July, August, September, October, November, and December. These are "
     "all twelve months, and the longest of them have thirty one days."),
    ("Please count | from one | up to twenty.",
     "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, sixteen, "
     "seventeen, eighteen, nineteen, and twenty."),
    ("Please count backward | from fifteen.",
     "Fifteen, fourteen, thirteen, twelve, eleven, ten, nine, eight, seven, six, five, four, three, two, one, and "
     "zero. That was all of them."),
    ("List the planets | of the sun.",
     "The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, and Neptune. Mercury is the smallest and "
     "the fastest, and Jupiter is larger than all the others together."),
    ("Name many animals | and their homes.",
     "The bee lives in a hive, the bird in a nest, the bear in a cave, the horse in a stable, the spider in a web, the "
     "fish in a river, and the frog in a pond."),
    ("Name some countries | and their capitals.",
     "The capital of France is Paris, of Spain Madrid, of Italy Rome, of Germany Berlin, of Japan Tokyo, of Egypt "
     "Cairo, of Cuba Havana, and of Greece Athens."),
    ("What should I pack | for the weekend?",
     "Take two shirts, a warm coat, good shoes, a toothbrush, a towel, something to read, an umbrella, a bottle of "
     "water, and enough money for the train. Leave a little space for what you find there."),
    ("What do I need | to bake bread?",
     "You need flour, water, yeast, salt, and a little sugar. You also need a large bowl, a clean towel, a wooden "
     "spoon, a hot oven, and about three hours of a quiet afternoon."),
]  # fmt: skip

EXPLANATIONS = [
    ("Please explain | how rain | is made.",
     "The sun warms the ocean, and some of the water rises into the air. High above it becomes cold and turns into "
     "clouds. When the drops are heavy enough, they fall down as rain."),
    ("Please explain | why the sky | looks blue.",
     "Light from the sun holds all colors. The air sends the blue part in every direction, and lets the red part pass. "
     "So blue light comes to our eyes from the whole sky."),
    ("Please explain | how bees | make honey.",
     "A bee visits many flowers and carries the sweet juice home to the hive. Other bees dry it with their wings for "
     "days. Then they close it into small rooms of wax, and it becomes honey."),
    ("Please explain | how I make | a cup of tea.",
     "Boil fresh water and warm the cup with a little of it. Put in one spoon of tea and pour the hot water over the "
     "leaves. Wait for four minutes, take the leaves out, and add some milk."),
    ("Please explain | how a boat | can float.",
     "A boat pushes water away where it lies. The water pushes back from below, as strongly as the water that it "
     "pushed away is heavy. If the boat is lighter than that, it stays on top."),
    ("Why do we have | day and night?",
     "The earth turns around once in twenty four hours. The side that looks at the sun is bright, and there it is day. "
     "The other side is dark, and people there are asleep in the night."),
    ("Why do we have | four seasons?",
     "The earth leans a little to one side while it travels around the sun. For half of the year the north gets more "
     "light, and there it is summer. Then the south gets more, and the north has winter."),
    ("How do I get | to the station?",
     "Go straight ahead until you see a yellow house, and turn left there. Walk along the river for ten minutes and "
     "cross the second bridge. The station is the big building with the clock, on your right."),
]  # fmt: skip

#: Family, (user's text with pause marks, agent's text).
LONG_ANSWERS = [
    *(("story", *pair) for pair in STORIES),
    *(("long_list", *pair) for pair in LONG_LISTS),
    *(("explanation", *pair) for pair in EXPLANATIONS),
]
