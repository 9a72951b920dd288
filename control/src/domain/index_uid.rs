//! The rule for index uids.

use crate::base::error::api_error;
use miroir_core::error::ApiError;

/// Meilisearch's rule for index uids.
///
/// # Errors
/// `invalid_index_uid`, in Meilisearch's words.
pub fn check_index_uid(uid: &str) -> Result<(), ApiError> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if !uid.is_empty() && uid.len() <= 400 && uid.chars().all(allowed) {
        return Ok(());
    }
    Err(api_error(
        400,
        "invalid_request",
        "invalid_index_uid",
        format!(
            "`{uid}` is not a valid index uid. Index uid can be an integer or a string containing only alphanumeric \
             characters, hyphens (-) and underscores (_), and can not be more than 512 bytes."
        ),
    ))
}
