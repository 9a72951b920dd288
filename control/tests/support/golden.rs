//! Golden files: what is written to a disk or a wire, as text that a change of the code must not change by accident.

use rusqlite::Connection;
use std::{fmt::Write, fs, path::Path};

/// The environment variable that has golden files written anew, where it is `write`.
const SWITCH: &str = "MIROIR_GOLDEN";

/// Compares text with a golden file of `tests/golden/`, or writes the file.
pub fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var(SWITCH).is_ok_and(|value| value == "write") {
        fs::write(&path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap();
    let differs = expected.lines().zip(text.lines()).position(|(expected, found)| expected != found);
    let line = differs.unwrap_or(expected.lines().count().min(text.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    assert!(
        expected == text,
        "{name} differs in line {}:\n  expected {}\n  found    {}\nIf that is wanted, run the test with {SWITCH}=write.",
        line + 1,
        at(&expected),
        at(text)
    );
}

/// The schema and all rows of a database, as SQL that makes them again.
pub fn sql_of(database: &Path) -> String {
    let connection = Connection::open(database).unwrap();
    let texts = |query: &str| -> Vec<String> {
        let mut statement = connection.prepare(query).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let mut sql = format!("PRAGMA user_version = {version};\n");
    for statement in texts("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name") {
        writeln!(sql, "{statement};").unwrap();
    }
    for table in texts("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name") {
        let columns = texts(&format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"));
        let values: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        let row = format!(
            "SELECT 'INSERT INTO {table} ({}) VALUES (' || {} || ');' FROM {table}",
            columns.join(", "),
            values.join(" || ', ' || ")
        );
        let mut rows = texts(&row);
        // Keys may be random: rows of the same kind come together.
        rows.sort_by_key(|row| masked(row));
        rows.iter().for_each(|row| writeln!(sql, "{row}").unwrap());
    }
    sql
}

/// The nanoseconds that stand for any moment.
const MOMENT: &str = "1700000000000000000";

/// Text without what differs from run to run: moments, random names, ports.
pub fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        let length = rest.find(|letter: char| !is_word(letter)).unwrap_or(rest.len());
        let (word, others) = rest.split_at(length);
        let digits = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
        let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if word.len() == MOMENT.len() && digits(word) {
            masked.push_str(MOMENT);
        } else if word.len() >= 32 && is_hex(word) {
            masked.push_str("<random>");
        } else if digits(word) && masked.ends_with("127.0.0.1:") {
            masked.push_str("<port>");
        } else {
            masked.push_str(word);
        }
        let mut letters = others.chars();
        masked.extend(letters.next());
        rest = letters.as_str();
    }
    masked
}
