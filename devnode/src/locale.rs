//! Languages by their codes: two letters (ISO 639-1) or three (ISO 639-3).

use deserr::{Deserr, ErrorKind, IntoValue, Value, ValueKind, ValuePointerRef, take_cf_content};
use milli_core::tokenizer::Language;

use crate::validate::{FromParam, Unparsable};

/// Both codes of each language.
const CODES: &[(&str, &str)] = &[
    ("af", "afr"),
    ("ak", "aka"),
    ("am", "amh"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bn", "ben"),
    ("bg", "bul"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("et", "est"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("jv", "jav"),
    ("ja", "jpn"),
    ("kn", "kan"),
    ("ka", "kat"),
    ("km", "khm"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lv", "lav"),
    ("lt", "lit"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("mk", "mkd"),
    ("my", "mya"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("nb", "nob"),
    ("or", "ori"),
    ("pa", "pan"),
    ("fa", "pes"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("es", "spa"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("tl", "tgl"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
    ("yi", "yid"),
    ("zh", "zho"),
    ("zu", "zul"),
];

const COUNT: usize = CODES.len() * 2 + 1;

/// All codes, with those of two letters first, in the order of error messages.
static NAMES: [&str; COUNT] = {
    let mut names = ["cmn"; COUNT];
    let mut i = 0;
    while i < CODES.len() {
        names[i] = CODES[i].0;
        names[CODES.len() + i] = CODES[i].1;
        i += 1;
    }
    names
};

/// A language named by a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locale(pub Language);

impl Locale {
    fn from_code(code: &str) -> Option<Self> {
        let long = CODES.iter().find(|(short, _)| *short == code).map_or(code, |(_, long)| long);
        NAMES.contains(&long).then(|| Language::from_code(long)).flatten().map(Self)
    }
}

impl<E: deserr::DeserializeError> Deserr<E> for Locale {
    fn deserialize_from_value<V: IntoValue>(value: Value<V>, at: ValuePointerRef<'_>) -> Result<Self, E> {
        let error = match value {
            Value::String(code) => match Self::from_code(&code) {
                Some(locale) => return Ok(locale),
                None => E::error::<V>(None, ErrorKind::UnknownValue { value: &code, accepted: &NAMES }, at),
            },
            actual => {
                E::error(None, ErrorKind::IncorrectValueKind { actual, accepted: &[ValueKind::String] }, at)
            }
        };
        Err(take_cf_content(error))
    }
}

impl FromParam for Locale {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        Self::from_code(text).ok_or_else(|| {
            let mut names = NAMES.to_vec();
            names.sort_by(|left, right| left.len().cmp(&right.len()).then(left.cmp(right)));
            Unparsable(format!("Unsupported locale `{text}`, expected one of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_codes_name_a_language() {
        assert_eq!(Locale::from_code("fr"), Locale::from_code("fra"));
        assert!(Locale::from_code("fr").is_some());
        assert!(Locale::from_code("xx").is_none());
    }
}
