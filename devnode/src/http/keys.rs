//! `/keys`.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use deserr::Deserr;

use super::{Answer, Call, Paged, ok, reply};
use crate::auth::Action;
use crate::auth::key::{KeyPatch, NewKey};
use crate::error::marker as code;
use crate::validate::{InvalidQuery, Param};

#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
struct ListParams {
    #[deserr(default = Param(0), error = InvalidQuery<code::InvalidApiKeyOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(20), error = InvalidQuery<code::InvalidApiKeyLimit>)]
    limit: Param<usize>,
}

fn master_key(call: &Call) -> &str {
    call.node.keys.master_key().unwrap_or_default()
}

/// `GET /keys`
pub async fn list(call: Call) -> Answer {
    call.allow(Action::KeysGet, None)?;
    let params: ListParams = call.params()?;
    let views = call.node.keys.list().iter().map(|key| key.view(master_key(&call))).collect();
    ok(&Paged::new(views, params.offset.0, params.limit.0))
}

/// `POST /keys`
pub async fn create(call: Call) -> Answer {
    call.allow(Action::KeysAdd, None)?;
    let key = call.json::<NewKey>()?.into_key()?;
    let key = call.node.keys.add(&call.node.store, key)?;
    reply(StatusCode::CREATED, &key.view(master_key(&call)))
}

/// `GET /keys/{key}`
pub async fn one(Path(key): Path<String>, call: Call) -> Answer {
    call.allow(Action::KeysGet, None)?;
    ok(&call.node.keys.find(&key)?.view(master_key(&call)))
}

/// `PATCH /keys/{key}`
pub async fn patch(Path(key): Path<String>, call: Call) -> Answer {
    call.allow(Action::KeysUpdate, None)?;
    let patch: KeyPatch = call.json()?;
    let mut key = call.node.keys.find(&key)?;
    patch.apply(&mut key);
    let key = call.node.keys.put(&call.node.store, key)?;
    ok(&key.view(master_key(&call)))
}

/// `DELETE /keys/{key}`
pub async fn delete(Path(key): Path<String>, call: Call) -> Answer {
    call.allow(Action::KeysDelete, None)?;
    let key = call.node.keys.find(&key)?;
    call.node.keys.remove(&call.node.store, key.uid)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
