//! Edits by function: wraps the client's function so that it never sees the tag, and can neither drop nor change it.
//!
//! Source: Meilisearch 1.50, `milli/src/update/new/indexer/update_by_function.rs`: the script runs with the document as the
//! variable `doc`, and the value of `doc` at the end is the new document; `()` deletes it.

use crate::{
    error::{ApiError, Code},
    json::to_bytes,
    scrub,
    shard::{Shard, TAG_FIELD, tag_filter},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

/// The body of `POST /indexes/{uid}/documents/edit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The filter that selects the documents; all documents if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// The value that the function can read as `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// A Rhai script.
    pub function: String,
}

/// The number of lines before the client's function in a wrapped one; positions in a node's errors count them.
pub const LINES_BEFORE: u32 = 1;

/// Functions that the wrapping code relies on. A definition in the client's script would take precedence over Rhai's.
const RELIED_ON: [&str; 2] = ["remove", "exit"];

impl Edit {
    /// Checks whether the function can be wrapped so that it cannot reach the tag.
    ///
    /// # Errors
    /// The function defines functions that the wrapping relies on, or contains a block comment that could swallow the end of
    /// the wrapping.
    pub fn check(&self) -> Result<(), ApiError> {
        let refused = |message: String| Err(ApiError::new(Code::BAD_REQUEST, message));
        for signature in definitions(&self.function) {
            if let Some(name) = RELIED_ON.iter().find(|name| words(signature).any(|word| word == **name)) {
                return refused(format!(
                    "A cluster does not accept a function that defines `{name}`: give it another name."
                ));
            }
            // Functions cannot be defined inside a block, and without a block around the function an unclosed comment would
            // continue into the wrapping.
            if self.function.contains("/*") {
                let why = "A cluster does not accept a function that defines functions and has block comments: write them with `//`.";
                return refused(why.to_owned());
            }
        }
        Ok(())
    }

    /// The body of the request that edits the documents of some shards on a node. `secret` must not be known to any client.
    #[must_use]
    pub fn of_shards(&self, secret: &str, shards: &[Shard]) -> Vec<u8> {
        let narrowed = self.narrowed(shards);
        let edit = Self { function: wrapped(&self.function, secret, None), ..narrowed };
        to_bytes(&edit)
    }

    /// The body of a request with which a node checks whether it would accept the edit of these shards' documents. It leaves
    /// the documents unchanged.
    #[must_use]
    pub fn trial(&self, secret: &str, shards: &[Shard], primary_key: &str) -> Vec<u8> {
        let narrowed = self.narrowed(shards);
        let edit = Self { function: wrapped(&self.function, secret, Some(primary_key)), ..narrowed };
        to_bytes(&edit)
    }

    /// The edit with the client's filter disguised and a filter by tag added. The added filter is not disguised.
    fn narrowed(&self, shards: &[Shard]) -> Self {
        let disguised = |filter: &Value| scrub::disguise_value(filter).unwrap_or_else(|| filter.clone());
        let mut conditions = match self.filter.as_ref().map(disguised) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(conditions)) => conditions,
            Some(condition) => vec![condition],
        };
        conditions.push(Value::String(tag_filter(shards)));
        Self { filter: Some(Value::Array(conditions)), ..self.clone() }
    }
}

/// Wraps the function: removes the tag before it and restores the tag after it. Meanwhile, a variable keeps the tag under a
/// name that no function can know. The code that restores the tag calls no function, because the client's script could define
/// one with the same name.
///
/// With a primary key it is a trial: the document is restored to its original unless a node would refuse the edited one.
fn wrapped(function: &str, secret: &str, trial: Option<&str>) -> String {
    let unknown =
        |what: &str| format!("{what}_{:032x}", xxh3_128(format!("{what}\n{secret}\n{function}").as_bytes()));
    // A function can catch the marker and read it from the error, so the variable's name must not be derivable from the marker.
    let (kept, mark) = (unknown("kept"), unknown("exit"));
    // All of this must stay on one line: see [`LINES_BEFORE`].
    let mut before = format!("let {kept} = doc[\"{TAG_FIELD}\"]; doc.remove(\"{TAG_FIELD}\"); ");
    let mut after = format!("\n;try {{ doc[\"{TAG_FIELD}\"] = {kept}; }} catch {{}}");
    if let Some(key) = trial {
        let original = unknown("original");
        before = format!("let {original} = doc; {before}");
        // A node refuses a changed id, and a result that is not a document; `()` deletes the document. A nested key is not
        // compared.
        let id = |of: &str| format!("`${{{of}[{}]}}`", literal(key));
        let is_same = format!("{} == {}", id("doc"), id(&original));
        after.push_str(&format!(
            " try {{ doc[\"{TAG_FIELD}\"] = {kept}; if {is_same} {{ doc = {original}; }} }} \
             catch {{ if doc == () {{ doc = {original}; }} }}"
        ));
    }
    // `exit` would leave the whole script immediately. Here it throws an error instead, which is caught if the script uses
    // `exit` visibly.
    before.push_str(&format!("fn exit() {{ throw \"{mark}\"; }} fn exit(result) {{ throw \"{mark}\"; }} "));
    if words(function).any(|word| word == "exit") {
        before.push_str("try { ");
        after = format!("\n}} catch (error) {{ if error != \"{mark}\" {{ throw error; }} }}{after}");
    } else if function.contains("/*") {
        // An unclosed comment leaves the block open, and Rhai refuses a script with an open block as a whole.
        before.push_str("{ ");
        after = format!("\n}}{after}");
    }
    before.push('\n');
    // A `return` would leave the script before the tag is restored, but it only leaves an `eval`.
    let returns = words(function).any(|word| word == "return");
    let inner = if returns { format!("eval({})", literal(function)) } else { function.to_owned() };
    [before, inner, after].concat()
}

/// The start of each function definition in a script, up to the parameters. Strings and comments that look like definitions are
/// included.
fn definitions(script: &str) -> impl Iterator<Item = &str> {
    let starts = script.match_indices("fn").filter(|(start, name)| {
        let before = script.get(..*start).and_then(|before| before.chars().next_back());
        let after = script.get(start + name.len()..).and_then(|after| after.chars().next());
        ![before, after].into_iter().flatten().any(is_of_a_word)
    });
    starts.filter_map(|(start, _)| script.get(start..)?.split('(').next())
}

fn words(script: &str) -> impl Iterator<Item = &str> {
    script.split(|letter| !is_of_a_word(letter))
}

fn is_of_a_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Quotes text as a Rhai string.
fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use rhai::{Dynamic, Engine, Map, OptimizationLevel, Scope};

    const TAG: &str = ",;(";

    /// Runs a script as a node does.
    fn run(script: &str) -> Result<Dynamic, String> {
        let mut engine = Engine::new();
        engine.set_optimization_level(OptimizationLevel::Full);
        engine.set_max_functions(30);
        engine.set_max_expr_depths(100, 1000);
        let ast = engine.compile(script).map_err(|error| error.to_string())?;
        let mut scope = Scope::new();
        let doc = Map::from_iter([("id".into(), 1_i64.into()), (TAG_FIELD.into(), TAG.into())]);
        scope.push("doc", doc);
        let _ = engine.eval_ast_with_scope::<Dynamic>(&mut scope, &ast).map_err(|error| error.to_string())?;
        Ok(scope.remove::<Dynamic>("doc").unwrap())
    }

    fn edited(function: &str) -> Result<Dynamic, String> {
        run(&wrapped(function, "a key", None))
    }

    #[test]
    fn a_trial_fails_as_the_edit_would_and_leaves_documents_as_they_are() {
        let tried = |function: &str, key: &str| run(&wrapped(function, "a key", Some(key)));
        let original = Map::from_iter([("id".into(), 1_i64.into()), (TAG_FIELD.into(), TAG.into())]);
        for function in [
            "doc.n = 2",
            "doc = ()",
            "doc.n = 1; return; doc.n = 2",
            "exit()",
            "doc.clear(); doc.id = 1",
            "doc.id = \"1\"",
            "doc[\"_miroir\" + \"_shard\"] = \"}}}\"",
            "/* a comment */ doc.n = 3",
            "fn f(x) { x * 2 } doc.n = f(2)",
        ] {
            for key in ["id", "meta.ref"] {
                let doc = tried(function, key).unwrap_or_else(|error| panic!("{function}: {error}"));
                let doc = doc.cast::<Map>();
                assert_eq!(format!("{doc:?}"), format!("{original:?}"), "{function}");
            }
        }
        for function in ["doc.n = 3 /* open", "doc.n = "] {
            assert!(tried(function, "id").is_err() && edited(function).is_err(), "{function}");
        }
        assert!(tried("throw \"x\"", "id").unwrap_err().contains('x'));
        assert!(tried("doc.n = nothing", "id").unwrap_err().contains("nothing"));
        assert_eq!(tried("doc = 5", "id").unwrap().as_int(), Ok(5));
        for function in ["doc.id = 2; doc.n = 1", "doc.remove(\"id\")"] {
            let doc = tried(function, "id").unwrap().cast::<Map>();
            assert_ne!(format!("{doc:?}"), format!("{original:?}"), "{function}");
            assert_eq!(doc[TAG_FIELD].clone().into_string().unwrap(), TAG, "{function}");
        }
    }

    #[test]
    fn a_function_edits_what_it_sees_and_the_tag_stays() {
        for (function, member) in [
            ("doc.n = 2", 2),
            ("doc.n = 1; return; doc.n = 2", 1),
            ("doc.n = 1; exit(); doc.n = 2", 1),
            ("fn twice(x) { x * 2 } doc.n = twice(4)", 8),
            ("/* a comment */ doc.n = 3 // and another", 3),
            ("doc = #{id: 1, n: 5}", 5),
            ("doc.n = doc.len()", 1),
            ("if \"_miroir_shard\" in doc { doc.n = 1 } else { doc.n = 0 }", 0),
            ("doc.returned = 1; doc.n = 7;", 7),
        ] {
            let map = edited(function).unwrap_or_else(|error| panic!("{function}: {error}")).cast::<Map>();
            assert_eq!(map["n"].as_int(), Ok(member), "{function}");
            assert_eq!(map[TAG_FIELD].clone().into_string().unwrap(), TAG, "{function}");
        }
        assert!(edited("doc = ()").unwrap().is_unit());
        assert_eq!(edited("doc = 5").unwrap().as_int(), Ok(5));
        assert!(edited("doc.n = nothing").unwrap_err().contains("nothing"));
    }

    #[test]
    fn no_function_drops_the_tag_or_changes_it() {
        for function in [
            "exit()",
            "exit(5)",
            "Fn(\"ex\" + \"it\").call()",
            "eval(\"ex\" + \"it()\")",
            "if true { exit() }",
            "doc.n = 1 /* open",
            "doc.n = 1 /* open /* nested */",
            "let s = \"*/\"; /* open",
            "doc.n = 1 // open",
            "doc._miroir_shard = \"}}}\"",
            "doc[\"_miroir\" + \"_shard\"] = \"}}}\"",
            "_miroir_shard = \"}}}\"",
            "let _miroir_shard = \"}}}\";",
            "fn type_of(x) { \"no\" } fn print(x) { }",
            "fn set(a, b) { } doc.n = 1",
            "doc.clear(); doc.id = 1",
            "let doc = #{id: 1}; doc",
            "try { exit() } catch { }",
            "try { exit() } catch (e) { eval(e + \" = 1\") }",
            "try { exit() } catch (e) { eval(\"kept\" + e.sub_string(4) + \" = 1\") }",
            "try { Fn(\"ex\" + \"it\").call() } catch (e) { doc.leak = eval(e) }",
            "throw \"x\"",
            "eval(\"return 1\"); doc.id = 1",
            "return /* open",
            "`${doc}`; doc.id = 1",
        ] {
            let edit = Edit { filter: None, context: None, function: function.to_owned() };
            assert!(edit.check().is_ok(), "{function}");
            match edited(function) {
                Err(_) => {}
                Ok(doc) => {
                    let map = doc.cast::<Map>();
                    assert_eq!(map[TAG_FIELD].clone().into_string().unwrap(), TAG, "{function}: {map:?}");
                    let told = map.iter().filter(|(name, _)| *name != TAG_FIELD);
                    assert!(
                        told.clone().all(|(_, value)| !value.to_string().contains(TAG)),
                        "{function}: {map:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn functions_that_the_wrapping_relies_on_are_the_engines() {
        for function in [
            "fn remove(x) { } doc.n = 1",
            "private fn\n// comment\n exit() { }",
            "fn Map.remove(x) { }",
            "fn f() { /* x */ }",
        ] {
            let edit = Edit { filter: None, context: None, function: function.to_owned() };
            assert!(edit.check().is_err(), "{function}");
        }
        for function in
            ["doc.remove(\"n\")", "fn removed(x) { x } doc.n = removed(1)", "let confn = 1; /* x */"]
        {
            let edit = Edit { filter: None, context: None, function: function.to_owned() };
            assert!(edit.check().is_ok(), "{function}");
        }
    }

    #[test]
    fn an_edit_of_some_shards_finds_what_its_filter_finds_there() {
        let filter = |filter: Option<Value>| {
            let edit = Edit { filter, context: None, function: "doc.n = 1".to_owned() };
            let body: Value = serde_json::from_slice(&edit.of_shards("k", &[Shard(0)])).unwrap();
            body["filter"].clone()
        };
        let tag = tag_filter(&[Shard(0)]);
        assert_eq!(filter(None), serde_json::json!([tag]));
        assert_eq!(filter(Some("a = 1".into())), serde_json::json!(["a = 1", tag]));
        let told = serde_json::json!([["a = 1", "_miroir_shard EXISTS"]]);
        assert_eq!(filter(Some(told)), serde_json::json!([["a = 1", "_miroir_5hard EXISTS"], tag]));
    }

    #[test]
    fn a_filter_that_names_the_tag_finds_nothing() {
        let filter = Some(serde_json::json!(["_miroir_shard = \",,,\""]));
        let edit = Edit { filter, context: None, function: String::new() };
        assert!(
            !String::from_utf8(edit.of_shards("k", &[Shard(1)])).unwrap().contains("_miroir_shard = \\\",,,")
        );
    }
}
