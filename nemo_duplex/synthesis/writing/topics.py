"""What dialogues are about: 20 everyday and 43 science topics, as many as the paper took (section 4.3),
each with subtopics."""

from __future__ import annotations

from dataclasses import dataclass

# A line, or two, is a topic, and its subtopics as they stand in "I have a question about ...".
_EVERYDAY = """
pets: dogs, cats, goldfish, hamsters, parrots, puppy training, cat food, walking the dog
cooking: soup, pancakes, rice, pasta, bread, roast chicken, boiled eggs, a salad
food shopping: fresh fruit, vegetables, the price of milk, a shopping list, cheese, frozen food, the farmers market,
  canned beans
restaurants: booking a table, the menu, a tip for the waiter, vegetarian food, dessert, a takeaway pizza,
  breakfast places, table manners
weather today: rain, snow, fog, a thunderstorm, the wind, a heat wave, umbrellas, sunny days
travel: packing a suitcase, passports, cheap hotels, the airport, a long flight, a beach holiday, road trips, travel insurance
public transport: train tickets, the bus, the subway, a monthly pass, taxis, night buses, delays, seats on the train
driving: a flat tire, parking, a driving test, seat belts, traffic jams, electric cars, fuel, speed limits
home: cleaning the kitchen, washing windows, a leaking tap, house plants, painting a wall, light bulbs, moving house,
  noisy neighbors
clothes: running shoes, a winter coat, washing a sweater, jeans, ironing a shirt, a raincoat, socks, wool hats
gardening: tomatoes, watering plants, compost, roses, weeds, a lawn, herbs, planting trees
music: the piano, the guitar, a choir, the violin, drums, reading music, concerts, jazz
books and films: science fiction, detective stories, the library, poems, comic books, a book club, documentaries, old films
sports: swimming, football, tennis, basketball, cycling, running a marathon, yoga, skiing
hobbies: painting, photography, knitting, chess, fishing, board games, hiking, birdwatching
family: a baby, grandparents, brothers and sisters, a family dinner, bedtime stories, twins, pocket money, a wedding
birthdays and gifts: a birthday cake, a birthday party, flowers, wrapping paper, thank you cards, balloons, candles,
  a gift for a friend
work: a job interview, a cover letter, a busy boss, meetings, working from home, lunch breaks, coworkers, a pay raise
money: saving money, a bank account, a budget, credit cards, rent, taxes, coins, a loan
feeling well: a headache, a good night's sleep, a sore back, a cold, stress, a healthy breakfast, drinking water,
  brushing teeth
"""
_SCIENCE = """
planets: Mars, Venus, Jupiter, Saturn, Mercury, Neptune, the rings of Saturn, dwarf planets
the moon: the phases of the moon, moon craters, a full moon, moon landings, the far side of the moon, moon dust,
  a lunar eclipse, moonlight
the sun and the stars: the sun, a solar eclipse, sunlight, the North Star, constellations, galaxies, shooting stars,
  black holes
space travel: astronauts, rockets, a space station, satellites, space suits, telescopes, food in space,
  the first trip to the moon
day, night and seasons: spring, summer, autumn, winter, sunrise, the longest day, time zones, leap years
the atmosphere: air, the ozone layer, air pressure, the blue sky, oxygen, carbon dioxide, wind, clouds
storms: hurricanes, tornadoes, lightning, thunder, hail, blizzards, rainbows, weather forecasts
climate: greenhouse gases, glaciers, deserts, rain forests, drought, melting ice, the seasons, the sea level
the water cycle: evaporation, rain, rivers, lakes, clouds, groundwater, dew, floods
oceans: tides, waves, coral reefs, salt water, the deep sea, sea ice, ocean currents, islands
volcanoes: lava, volcanic ash, magma, an active volcano, hot springs, volcanic islands, an old volcano, a volcanic eruption
earthquakes: seismic waves, a tsunami, fault lines, earthquake safety, plate tectonics, mountains, aftershocks, a seismograph
rocks and minerals: granite, limestone, diamonds, sandstone, crystals, marble, salt, gold
soil: sand, clay, earthworms, erosion, roots, mud, compost, minerals in soil
fossils: dinosaurs, fossil shells, amber, mammoths, footprints in stone, extinct animals, coal, museums
plants: photosynthesis, leaves, seeds, roots, flowers, pollen, cactus plants, moss
trees: oak trees, pine trees, apple trees, tree rings, bark, autumn leaves, palm trees, maple syrup
insects: bees, ants, butterflies, mosquitoes, beetles, honey, caterpillars, dragonflies
birds: owls, penguins, eagles, bird nests, feathers, migrating birds, parrots, chickens
mammals: elephants, whales, bats, horses, lions, mice, bears, kangaroos
reptiles and frogs: snakes, turtles, crocodiles, lizards, frogs, tadpoles, chameleons, snake skin
fish and sea life: sharks, octopuses, jellyfish, salmon, dolphins, crabs, seahorses, starfish
food chains: predators, plants as food, mushrooms, decomposers, herbivores, carnivores, plankton, food webs
habitats: the desert, the rain forest, ponds, the Arctic, caves, grasslands, wetlands, city animals
the heart and the blood: the heart, blood, the pulse, red blood cells, blood pressure, veins, exercise, a heartbeat
bones and muscles: bones, muscles, joints, the spine, a broken arm, teeth, knees, stretching
the brain and the nerves: the brain, memory, dreams, reflexes, nerves, sleep, learning, optical illusions
the five senses: eyesight, hearing, taste, smell, touch, glasses, ears, color blindness
food and digestion: the stomach, vitamins, sugar, protein, calcium, saliva, fiber, calories
health and germs: bacteria, viruses, vaccines, washing hands, fever, the immune system, a cough, antibiotics
cells: plant cells, the cell nucleus, DNA, red blood cells, a microscope, bacteria, cell walls, chromosomes
heredity: genes, eye color, twins, DNA, family traits, dog breeds, hair color, evolution
matter: solids, liquids, gases, melting, boiling water, ice, steam, density
atoms and molecules: atoms, electrons, protons, water molecules, the periodic table, helium, hydrogen, carbon
acids and mixtures: vinegar, baking soda, lemon juice, soap, salt water, rust, sugar in water, batteries
forces: gravity, friction, weight, falling objects, air resistance, balance, pushing and pulling, springs
motion and energy: speed, acceleration, kinetic energy, potential energy, bicycles, roller coasters, inertia, power
simple machines: levers, pulleys, wheels, screws, ramps, gears, scissors, a seesaw
heat: temperature, thermometers, insulation, fire, hot air balloons, heat from the sun, ovens, thermos bottles
light: mirrors, shadows, lenses, prisms, rainbows, the speed of light, lasers, colors of light
sound: echoes, the speed of sound, loud noises, musical instruments, vibrations, ultrasound, pitch, thunder
electricity and magnets: batteries, magnets, electric circuits, static electricity, a compass, light bulbs, switches,
  electric motors
energy sources: solar panels, wind turbines, coal, oil, nuclear energy, water power, batteries, saving energy
"""


@dataclass(frozen=True)
class Topic:
    """What a dialogue is about.

    Examples:
        >>> TOPICS[0].name, TOPICS[0].subtopics[0]
        ('pets', 'dogs')
    """

    name: str
    subtopics: tuple[str, ...]


def _topics(lines: str) -> tuple[Topic, ...]:
    pairs = (line.split(": ") for line in lines.strip().replace("\n  ", " ").splitlines())
    return tuple(Topic(name, tuple(subtopics.split(", "))) for name, subtopics in pairs)


EVERYDAY = _topics(_EVERYDAY)
SCIENCE = _topics(_SCIENCE)
TOPICS = EVERYDAY + SCIENCE
