//! Makes plausible inputs from bytes: JSON as clients and nodes write it, with the names that matter here.

use arbitrary::Unstructured;
use serde_json::{Map, Value, json};

/// Names of fields: ordinary ones, and all those that core treats specially.
const NAMES: [&str; 22] = [
    "id",
    "title",
    "price",
    "a.b",
    "é",
    "",
    "_geo",
    "_geojson",
    "_vectors",
    "_formatted",
    "_matchesPosition",
    "_rankingScore",
    "_rankingScoreDetails",
    "_federation",
    "_miroir",
    "_miroir_shar",
    "_miroir_5hard",
    "_Miroir*",
    "hits",
    "indexUid",
    "quote\"d",
    "back\\slash",
];

/// Numbers that different parsers treat differently.
const NUMBERS: [&str; 16] = [
    "0",
    "-0",
    "1",
    "-12",
    "1.5",
    "-1.5e-7",
    "1E+2",
    "1e999",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "-9223372036854775809",
    "0.1",
    "1.000",
    "123456789012345678901234567890",
];

/// Values for strings.
const TEXTS: [&str; 14] = [
    "",
    "a",
    "a b",
    "42",
    "A-b_9",
    "é\u{301}",
    "😀",
    "\u{0}",
    "\n",
    "_miroir_shar",
    "*",
    "_m*",
    "a = 1 OR b IN [1, \"2\"]",
    "_geoPoint(1, 2):asc",
];

/// A source of choices. Once its bytes are used up, it makes small choices.
#[derive(Debug)]
pub struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    /// Makes choices from these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.int_in_range(0..=end.max(1) - 1).unwrap_or_default()
    }

    /// `true` once in this many times, on average.
    pub fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 1 % chance.max(1)
    }

    /// One of these choices.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let choice = self.below(choices.len());
        choices[choice]
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.0.bytes(self.0.len()).unwrap_or_default()
    }

    /// This many bytes, or fewer if fewer are left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        self.0.bytes(count.min(self.0.len())).unwrap_or_default()
    }

    /// A field's name.
    pub fn name(&mut self) -> &'static str {
        self.of(&NAMES)
    }

    /// A text.
    pub fn text(&mut self) -> String {
        match self.below(8) {
            0 => String::from_utf8_lossy(self.bytes(12)).into_owned(),
            1 => self.name().to_owned(),
            _ => self.of(&TEXTS).to_owned(),
        }
    }

    /// A number that JSON parsers accept.
    pub fn number(&mut self) -> Value {
        serde_json::from_str(self.of(&NUMBERS)).unwrap_or_default()
    }

    /// A JSON value.
    pub fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => Value::Null,
            1 => self.one_in(2).into(),
            2 => self.number(),
            3 | 4 => self.text().into(),
            5 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            6 => json!({"lat": self.number(), "lng": self.number()}),
            _ => self.object(depth - 1).into(),
        }
    }

    /// An object with some fields.
    pub fn object(&mut self, depth: usize) -> Map<String, Value> {
        (0..self.below(5)).map(|_| (self.name().to_owned(), self.value(depth))).collect()
    }

    /// The JSON text of an object as people write it: with white space, escapes, duplicate members and numbers out of range.
    pub fn object_text(&mut self, depth: usize, out: &mut String) {
        out.push('{');
        for member in 0..self.below(5) {
            if member > 0 {
                out.push(',');
            }
            self.space(out);
            let name = if member == 0 && !self.one_in(4) { "id" } else { self.name() };
            self.string_text(name, out);
            self.space(out);
            out.push(':');
            self.value_text(depth, out);
            self.space(out);
        }
        out.push('}');
    }

    fn value_text(&mut self, depth: usize, out: &mut String) {
        self.space(out);
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => out.push_str(self.of(&["null", "true", "false"])),
            1 | 2 => out.push_str(self.of(&NUMBERS)),
            3 | 4 => {
                let text = self.text();
                self.string_text(&text, out);
            }
            5 | 6 => {
                out.push('[');
                for element in 0..self.below(4) {
                    if element > 0 {
                        out.push(',');
                    }
                    self.value_text(depth - 1, out);
                }
                out.push(']');
            }
            _ => self.object_text(depth - 1, out),
        }
    }

    /// A JSON string, possibly with escapes.
    pub fn string_text(&mut self, text: &str, out: &mut String) {
        if self.one_in(64) {
            // Half of a surrogate pair.
            out.push_str(r#""\ud800""#);
            return;
        }
        let escapes = self.one_in(6);
        out.push('"');
        for letter in text.chars() {
            if (escapes && self.one_in(3)) || letter < ' ' || letter == '"' || letter == '\\' {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                out.push(letter);
            }
        }
        out.push('"');
    }

    /// White space; mostly none.
    pub fn space(&mut self, out: &mut String) {
        if self.one_in(8) {
            out.push_str(self.of(&[" ", "\n", "\t", "\r\n", "  "]));
        }
    }

    /// Sometimes breaks a text, as a faulty client or network would.
    pub fn broken(&mut self, text: &mut Vec<u8>) {
        if text.is_empty() || !self.one_in(4) {
            return;
        }
        let at = self.below(text.len());
        match self.below(4) {
            0 => text.truncate(at),
            1 => drop(text.remove(at)),
            2 => text.insert(at, self.of(b"{}[]\",:\\ 0e-\xff\n")),
            _ => text[at] = self.of(b"{}[]\",:\\ 0e-\xff\n"),
        }
    }
}

/// Bytes generated from a seed (SplitMix64), the same on every machine.
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fills a buffer with the next input: up to 1,024 bytes, with short inputs more often.
    pub fn next(&mut self, bytes: &mut Vec<u8>) {
        let longest = [16, 64, 256, 1024][(self.draw() % 4) as usize];
        let length = self.draw() % longest;
        bytes.clear();
        while bytes.len() < length as usize {
            bytes.extend_from_slice(&self.draw().to_le_bytes());
        }
        bytes.truncate(length as usize);
    }
}
