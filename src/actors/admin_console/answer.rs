//! Answers of the console: built once, shown as text or as JSON, so that the two never tell different things.
//!
//! ```text
//! facts    name: value          {"name": value, ...}
//! table    COLUMNS and rows     {"title": [{"column": value, ...}, ...]}
//! list     rows, no header      the same
//! ```
//! Units: JSON has plain bytes and milliseconds (`free`, `silence_ms`), text shows them for people.

use comfy_table::{Cell as TableCell, CellAlignment, Table as TextTable, presets};
use serde_json::{Map, Value as Json};

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number as it is.
    Number(u64),
    /// Bytes.
    Bytes(u64),
    /// A time span in milliseconds.
    Millis(u64),
    /// Yes or no.
    Flag(bool),
    /// Not known, or does not apply.
    Nothing,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Into::into)
    }
}

impl Value {
    fn json(&self) -> Json {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Number(number) | Self::Bytes(number) | Self::Millis(number) => (*number).into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Nothing => Json::Null,
        }
    }

    /// On one line, whatever a stranger put into it.
    fn text(&self) -> String {
        match self {
            Self::Text(text) if text.is_empty() => "-".to_owned(),
            Self::Text(text) => text.replace(char::is_control, "?"),
            Self::Number(number) => number.to_string(),
            Self::Bytes(bytes) => bytesize::ByteSize(*bytes).display().iec().to_string(),
            Self::Millis(millis) => span(*millis),
            Self::Flag(true) => "yes".to_owned(),
            Self::Flag(false) => "no".to_owned(),
            Self::Nothing => "-".to_owned(),
        }
    }

    const fn is_number(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Bytes(_) | Self::Millis(_))
    }
}

/// `850ms`, `12.3s`, `5m 3s`, `2h 5m`, `3d 4h`.
fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{}.{}s", seconds, millis % 1_000 / 100),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Fact(&'static str, Value),
    Rows { title: &'static str, header: bool, columns: Vec<&'static str>, rows: Vec<Vec<Value>> },
}

/// What a command answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleAnswer {
    parts: Vec<Part>,
}

impl ConsoleAnswer {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { parts: Vec::new() }
    }

    /// Adds one named value.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.parts.push(Part::Fact(name, value.into()));
        self
    }

    /// Adds a table.
    #[must_use]
    pub fn table(
        self,
        title: &'static str,
        columns: &[&'static str],
        rows: Vec<Vec<Value>>,
    ) -> Self {
        self.rows(title, true, columns, rows)
    }

    /// Adds a table that is shown without its header.
    #[must_use]
    pub fn list(
        self,
        title: &'static str,
        columns: &[&'static str],
        rows: Vec<Vec<Value>>,
    ) -> Self {
        self.rows(title, false, columns, rows)
    }

    fn rows(
        mut self,
        title: &'static str,
        header: bool,
        columns: &[&'static str],
        rows: Vec<Vec<Value>>,
    ) -> Self {
        debug_assert!(rows.iter().all(|row| row.len() == columns.len()), "a row fits its columns");
        self.parts.push(Part::Rows { title, header, columns: columns.to_vec(), rows });
        self
    }

    /// One JSON document on one line.
    #[must_use]
    pub fn json(&self) -> String {
        let mut document = Map::new();
        for part in &self.parts {
            match part {
                Part::Fact(name, value) => {
                    document.insert((*name).to_owned(), value.json());
                }
                Part::Rows { title, columns, rows, .. } => {
                    let objects = rows.iter().map(|row| {
                        let fields = columns.iter().zip(row);
                        Json::Object(fields.map(|(c, v)| ((*c).to_owned(), v.json())).collect())
                    });
                    document.insert((*title).to_owned(), Json::Array(objects.collect()));
                }
            }
        }
        Json::Object(document).to_string()
    }

    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let facts = self.parts.iter().filter_map(|part| match part {
            Part::Fact(name, _) => Some(shown(name).len()),
            Part::Rows { .. } => None,
        });
        let width = facts.max().unwrap_or(0) + 1;
        let tables = self.parts.iter().filter(|p| matches!(p, Part::Rows { .. })).count();
        let titled = tables > 1 || tables < self.parts.len();
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Fact(name, value) => {
                    out.push_str(&format!(
                        "{:width$} {}\n",
                        format!("{}:", shown(name)),
                        value.text()
                    ));
                }
                Part::Rows { title, header, columns, rows } => {
                    if titled {
                        let gap = if out.is_empty() { "" } else { "\n" };
                        out.push_str(&format!("{gap}{title}:\n"));
                    }
                    out.push_str(&text_table(*header, columns, rows));
                }
            }
        }
        out
    }
}

/// A name as people see it: a time span carries its own unit.
fn shown(name: &str) -> &str {
    name.strip_suffix("_ms").unwrap_or(name)
}

fn text_table(header: bool, columns: &[&'static str], rows: &[Vec<Value>]) -> String {
    if rows.is_empty() {
        return "none\n".to_owned();
    }
    let mut table = TextTable::new();
    table.load_style(presets::NOTHING);
    if header {
        table.set_header(columns.iter().map(|name| shown(name).to_uppercase()));
    }
    for row in rows {
        table.add_row(row.iter().map(|value| {
            let side = if value.is_number() { CellAlignment::Right } else { CellAlignment::Left };
            TableCell::new(value.text()).set_alignment(side)
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ConsoleAnswer {
        let rows = vec![
            vec![1u16.into(), "online".into(), Value::Bytes(3 << 30), Value::Millis(12_345)],
            vec![2u16.into(), "off\nline".into(), Value::Nothing, Value::Millis(7)],
        ];
        ConsoleAnswer::new()
            .fact("state", "serving")
            .fact("uptime_ms", Value::Millis(93_784_000))
            .table("nodes", &["machine", "state", "free", "silence_ms"], rows)
    }

    #[test]
    fn text_and_json_tell_the_same() {
        let text = sample().text();
        for part in ["state:", "serving", "1d 2h", "nodes:", "MACHINE", "3.0 GiB", "12.3s", "7ms"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json: Json = serde_json::from_str(&sample().json()).expect("JSON");
        assert_eq!(json["state"], "serving");
        assert_eq!(json["nodes"][0]["free"], 3u64 << 30);
        assert_eq!(json["nodes"][1]["free"], Json::Null);
        assert_eq!(json["nodes"][1]["silence_ms"], 7);
    }

    #[test]
    fn a_value_never_breaks_out_of_its_line() {
        assert!(!sample().json().contains('\n'));
        assert_eq!(sample().text().lines().count(), 7, "{}", sample().text());
        let hostile = ConsoleAnswer::new().fact("name", "a\u{1b}[2J\r\n.\r\n").text();
        assert_eq!(hostile.lines().count(), 1);
        assert!(!hostile.contains('\u{1b}'));
    }

    #[test]
    fn a_list_has_one_line_a_row_and_nothing_else() {
        let rows = vec![vec!["help".into(), "lists".into()], vec!["quit".into(), "ends".into()]];
        let text = ConsoleAnswer::new().list("commands", &["command", "about"], rows).text();
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("help"), "{text}");
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(ConsoleAnswer::new().table("nodes", &["a"], Vec::new()).text(), "none\n");
    }
}
