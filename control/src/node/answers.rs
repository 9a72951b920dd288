//! Reading nodes' answers. What is not as Meilisearch answers is an error: taken for nothing, it would be "no indexes", "no keys" or "no
//! tasks", and others would be made the same.

use super::{Node, NodeAnswer, Request};
use crate::base::error::{Error, Result};
use miroir_core::error::{ApiError, Code, ErrorBody};
use serde_json::Value;
use std::fmt::Display;

impl Node {
    /// The error that an answer to a request is, which is not as Meilisearch answers.
    #[must_use]
    pub fn unreadable(&self, request: impl Display, answer: &Value) -> Error {
        let (node, request) = (self.name.clone(), request.to_string());
        Error::UnreadableAnswer { node, request, body: answer.to_string().chars().take(200).collect() }
    }

    /// What a successful answer says; null where it says nothing.
    ///
    /// # Errors
    /// It says something that is no JSON.
    pub(super) fn read(&self, request: &Request, answer: &NodeAnswer) -> Result<Value> {
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        // Of text rather than of bytes: this is compiled in `serde_json`, and optimised more than this crate.
        let read = std::str::from_utf8(&answer.body).ok().and_then(|text| text.parse().ok());
        read.ok_or_else(|| Error::UnreadableAnswer {
            node: self.name.clone(),
            request: format!("{} {}", request.method, request.path),
            body: String::from_utf8_lossy(&answer.body).chars().take(200).collect(),
        })
    }

    /// The elements of the list in an answer to a request.
    ///
    /// # Errors
    /// There is no list.
    pub fn results<'a>(&self, request: impl Display, answer: &'a Value) -> Result<&'a Vec<Value>> {
        let results = answer.get("results").and_then(Value::as_array);
        results.ok_or_else(|| self.unreadable(request, answer))
    }

    /// A member of an answer, or of a part of it, that is text.
    ///
    /// # Errors
    /// There is no such text.
    pub fn text<'a>(&self, request: impl Display, answer: &'a Value, name: &str) -> Result<&'a str> {
        let text = answer.get(name).and_then(Value::as_str);
        text.ok_or_else(|| self.unreadable(request, answer))
    }
}

/// A node's own uid of its task.
#[must_use]
pub fn task_uid(task: &Value) -> Option<u32> {
    u32::try_from(task.get("uid")?.as_u64()?).ok()
}

/// The error of a node's task; `None` where it has none. One that cannot be read is an error all the same.
#[must_use]
pub fn task_error(task: &Value) -> Option<ErrorBody> {
    let error = task.get("error").filter(|error| !error.is_null())?;
    Some(serde_json::from_value(error.clone()).unwrap_or_else(|_| {
        ApiError::new(Code::INTERNAL, format!("a node tells an error that cannot be read: {error}")).body
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Reply, Script, node};
    use serde_json::json;

    #[test]
    fn what_is_no_list_is_not_an_empty_one() {
        let node = node("n0", Script::new(|_| Reply::NoConnection));
        assert_eq!(*node.results("GET /keys", &json!({"results": [1]})).unwrap(), [json!(1)]);
        for wrong in [json!({}), json!(null), json!({"results": null}), json!([])] {
            let error = node.results("GET /keys", &wrong).unwrap_err().to_string();
            assert!(error.starts_with("node `n0` answered GET /keys with something else"), "{error}");
        }
        let answer = |body: &'static str| NodeAnswer {
            status: 200,
            content_type: None,
            allow: None,
            body: body.into(),
        };
        assert_eq!(node.read(&Request::default(), &answer("")).unwrap(), Value::Null);
        assert!(node.read(&Request::default(), &answer("<html>")).is_err());
    }

    #[test]
    fn an_error_that_cannot_be_read_is_one() {
        assert_eq!(task_error(&json!({"error": null})), None);
        let whole = json!({"message": "m", "code": "c", "type": "t", "link": "l"});
        assert_eq!(task_error(&json!({"error": whole})).unwrap().message, "m");
        let odd = task_error(&json!({"error": {"why": 1}})).unwrap();
        assert!(odd.message.ends_with("{\"why\":1}") && odd.kind == "internal", "{odd:?}");
    }
}
