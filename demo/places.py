"""Invented places: a data set with text, facets, numbers and coordinates, the same on every run."""

import random

KINDS = {
    "bakery": ["sourdough", "croissants", "rye bread", "almond cake", "pretzels"],
    "bookshop": ["first editions", "poetry", "maps", "comics", "detective novels"],
    "brewery": ["pale ale", "stout", "sour beer", "wheat beer", "cider"],
    "cinema": ["silent films", "westerns", "documentaries", "matinees", "midnight screenings"],
    "garden": ["roses", "a bamboo grove", "a greenhouse", "old oaks", "water lilies"],
    "museum": ["clocks", "sailing ships", "fossils", "steam engines", "porcelain"],
    "restaurant": ["dumplings", "grilled fish", "lentil soup", "handmade pasta", "tamales"],
    "theatre": ["puppets", "improvised comedy", "shadow plays", "opera", "dance"],
}
MOODS = ["quiet", "crowded", "sunlit", "candlelit", "legendary", "hidden", "family-run", "stubbornly old-fashioned"]
PEOPLE = ["Amara", "Bjarne", "Chiyo", "Delphine", "Ezra", "Fatima", "Giorgio", "Hana", "Ingrid", "Joao", "Kofi", "Leila"]
FEATURES = ["terrace", "piano", "parking", "wifi", "dogs welcome", "step-free", "late opening", "reservations"]
CITIES = {
    "Lisbon": (38.72, -9.14), "Paris": (48.86, 2.35), "Berlin": (52.52, 13.40), "Vienna": (48.21, 16.37),
    "Athens": (37.98, 23.73), "Oslo": (59.91, 10.75), "Kyoto": (35.01, 135.77), "Nairobi": (-1.29, 36.82),
    "Bogota": (4.71, -74.07), "Montreal": (45.50, -73.57),
}


def places(count):
    """Yields `count` documents."""
    chance = random.Random(20)
    for number in range(count):
        kind = chance.choice(sorted(KINDS))
        city = chance.choice(sorted(CITIES))
        person = chance.choice(PEOPLE)
        mood = chance.choice(MOODS)
        first, second = chance.sample(KINDS[kind], 2)
        latitude, longitude = CITIES[city]
        yield {
            "id": number,
            "name": f"{person}'s {kind} no. {chance.randint(1, 99)}",
            "description": f"A {mood} {kind} in {city}, known for {first} and {second}. "
                           f"{person} opened it after years of dreaming about {second}.",
            "kind": kind,
            "city": city,
            "features": sorted(chance.sample(FEATURES, chance.randint(1, 4))),
            "price": chance.randint(3, 120),
            "rating": round(chance.uniform(1, 5), 1),
            "opened": chance.randint(1890, 2025),
            "_geo": {
                "lat": round(latitude + chance.gauss(0, 0.08), 5),
                "lng": round(longitude + chance.gauss(0, 0.08), 5),
            },
        }
