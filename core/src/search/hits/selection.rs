//! Fields that merging needs of every hit: adds them to the client's selection, and removes them from the answer.

use serde_json::{Value, value::RawValue};

/// The fields that nodes are asked for, and those that the client does not see.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    fields: Option<Vec<String>>,
    hidden: Vec<String>,
    /// The fields that the client selected, some of which may share their root with a hidden field.
    visible: Vec<String>,
    formatted: Vec<String>,
}

impl Selection {
    /// `asked` is the client's selection; `None` for all fields. `formatted` lists the fields that `_formatted` shows even if
    /// they are not selected.
    #[must_use]
    pub fn new(asked: Option<&[String]>, formatted: &[String], needed: &[&str]) -> Self {
        let Some(asked) = asked.filter(|asked| !asked.iter().any(|name| name == "*")) else {
            return Self::default();
        };
        let mut hidden: Vec<String> = Vec::new();
        for name in needed {
            if asked.iter().chain(&hidden).any(|shown| covers(shown, name)) {
                continue;
            }
            // A node whose displayed attribute is `a` returns it for a request for `a`, but not for `a.b`.
            let root = name.split('.').next().unwrap_or(name);
            let shares_root = |field: &String| field.split('.').next() == Some(root);
            if root != *name && !asked.iter().any(shares_root) {
                hidden.push(root.to_owned());
            }
            hidden.push((*name).to_owned());
        }
        if hidden.is_empty() {
            return Self::default();
        }
        let fields = Some(asked.iter().chain(&hidden).cloned().collect());
        Self { fields, hidden, visible: asked.to_vec(), formatted: formatted.to_vec() }
    }

    /// The fields to request instead of the client's selection; `None` if the client's selection is enough.
    #[must_use]
    pub fn fields(&self) -> Option<&[String]> {
        self.fields.as_deref()
    }

    /// Writes a field of `_formatted`, or returns `false` if the client does not see it.
    pub fn write_formatted(&self, name: &str, value: &RawValue, out: &mut Vec<u8>) -> bool {
        let shown = self.formatted.iter().any(|field| field == "*" || covers(field, name));
        if shown {
            out.extend_from_slice(value.get().as_bytes());
        }
        shown || self.write(name, value, out)
    }

    /// Writes a field of a document, or returns `false` if the client does not see it.
    pub fn write(&self, name: &str, value: &RawValue, out: &mut Vec<u8>) -> bool {
        let below =
            |path: &str| path == name || path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let mut hidden = self.hidden.iter().filter(|path| below(path)).peekable();
        if hidden.peek().is_none() {
            out.extend_from_slice(value.get().as_bytes());
            return true;
        }
        if !self.visible.iter().any(|path| below(path)) {
            return false;
        }
        let Ok(mut value) = serde_json::from_str::<Value>(value.get()) else { return false };
        for path in hidden {
            remove(&mut value, path.get(name.len() + 1..).unwrap_or_default());
        }
        serde_json::to_writer(out, &value).is_ok()
    }
}

/// Whether selecting `shown` selects `name` too.
fn covers(shown: &str, name: &str) -> bool {
    shown == "*" || name.strip_prefix(shown).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn remove(value: &mut Value, path: &str) {
    match value {
        Value::Array(members) => members.iter_mut().for_each(|member| remove(member, path)),
        Value::Object(members) => {
            members.shift_remove(path);
            for (name, value) in members {
                if let Some(rest) = path.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('.')) {
                    remove(value, rest);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{json::RawObject, search::hits::fields::Shown};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn shown(asked: &[&str], formatted: &[&str], needed: &[&str], hit: &str) -> String {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let selection = Selection::new(Some(&own(asked)), &own(formatted), needed);
        let hit: RawObject<'_> = serde_json::from_str(hit).unwrap();
        let mut out = Vec::new();
        Shown { formatted: true, ..Shown::default() }.write(&hit, &selection, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_was_added_is_taken_out() {
        let hit = r#"{"id":1,"t":2,"_formatted":{"id":"1","t":"2"}}"#;
        assert_eq!(shown(&["t"], &[], &["id"], hit), r#"{"t":2,"_formatted":{"t":"2"}}"#);
        assert_eq!(shown(&["t"], &["*"], &["id"], hit), r#"{"t":2,"_formatted":{"id":"1","t":"2"}}"#);
        assert_eq!(shown(&["t", "id"], &[], &["id"], hit), hit);
        assert_eq!(shown(&["a.c"], &[], &["a.b"], r#"{"a":{"b":1,"c":2}}"#), r#"{"a":{"c":2}}"#);
        assert_eq!(shown(&["x"], &[], &["a.b"], r#"{"a":{"b":1},"x":3,"a.b":4}"#), r#"{"x":3}"#);
        assert_eq!(shown(&["a"], &[], &["a.b"], r#"{"a":{"b":1}}"#), r#"{"a":{"b":1}}"#);
    }

    #[test]
    fn nothing_is_added_where_the_clients_selection_is_enough() {
        assert!(Selection::new(None, &[], &["id"]).fields().is_none());
        assert!(Selection::new(Some(&["*".to_owned()]), &[], &["id"]).fields().is_none());
    }
}
