//! The cluster's secrets. They come from environment variables, or from files that these name, or from the data folder; a
//! missing secret is generated and kept in the data folder, readable by the owner only. They never come from arguments, which
//! other users of the machine can read.

use crate::base::{
    error::{Error, Result},
    files,
    random::{Random, SystemRandom},
};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::path::Path;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// File name in the data folder.
pub const FILE: &str = "secrets.json";

/// The secrets of the control plane.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secrets {
    /// The nodes' master key. Clients use it too, if the cluster has a master key.
    pub master_key: String,
    /// The secret with which gateways authenticate to the control plane.
    pub gateway_secret: String,
    /// The token for the operators' routes, such as `/_miroir/status`.
    pub admin_token: String,
}

/// Shows no secret, so that none gets into a log.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Loads the secrets, and generates those that are missing.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn load(data: &Path) -> Result<Self> {
        let path = data.join(FILE);
        let kept: Option<Self> = match std::fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file(&path)(error)),
        };
        let pick = |name: &str, kept: Option<&String>| -> Result<String> {
            let given = given(name, |name| std::env::var(name).ok())?;
            Ok(given.or_else(|| kept.cloned()).unwrap_or_else(random))
        };
        let secrets = Self {
            master_key: pick("MIROIR_MASTER_KEY", kept.as_ref().map(|kept| &kept.master_key))?,
            gateway_secret: pick("MIROIR_SECRET", kept.as_ref().map(|kept| &kept.gateway_secret))?,
            admin_token: pick("MIROIR_TOKEN", kept.as_ref().map(|kept| &kept.admin_token))?,
        };
        if kept.as_ref() == Some(&secrets) {
            files::make_private(&path)?;
        } else {
            secrets.store(data)?;
        }
        Ok(secrets)
    }

    /// Reads the stored secrets of the control plane whose data folder is `data`.
    ///
    /// # Errors
    /// The file does not exist, or cannot be read.
    pub fn read(data: &Path) -> Result<Self> {
        let path = data.join(FILE);
        let bytes = std::fs::read(&path).map_err(Error::file(&path))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes them to the data folder, readable by the owner only.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn store(&self, data: &Path) -> Result<()> {
        files::replace(&data.join(FILE), &serde_json::to_vec_pretty(self)?)
    }

    /// The text of the API key with this uid. Meilisearch derives it from the master key, so it is the same on all nodes.
    ///
    /// Format: lower-case hex of HMAC-SHA256(master key, hyphenated uid).
    #[must_use]
    pub fn key_text(&self, uid: Uuid) -> String {
        // HMAC accepts keys of any length, so this error cannot happen.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.master_key.as_bytes()) else {
            return String::new();
        };
        mac.update(uid.hyphenated().to_string().as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

/// The value of an environment variable, or the content of the file that the variable `{name}_FILE` names, without its trailing
/// line break.
///
/// # Errors
/// The file cannot be read.
pub fn given(name: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Option<String>> {
    let is_there = |value: &String| !value.is_empty();
    if let Some(value) = environment(name).filter(is_there) {
        return Ok(Some(value));
    }
    let Some(path) = environment(&format!("{name}_FILE")).filter(is_there) else { return Ok(None) };
    let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()).filter(is_there))
}

/// 244 random bits of the operating system's, in hexadecimal.
#[must_use]
pub fn random() -> String {
    format!("{}{}", SystemRandom.name(), SystemRandom.name())
}

/// Compares in constant time, so that the duration does not reveal how much of a guess is right.
#[must_use]
pub fn same(left: &str, right: &str) -> bool {
    left.as_bytes().ct_eq(right.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn secrets_survive_and_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let made = Secrets::load(folder.path()).unwrap();
        assert_eq!(Secrets::load(folder.path()).unwrap().master_key, made.master_key);
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn secrets_are_written_when_they_change_only_and_never_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut secrets = Secrets::load(folder.path()).unwrap();
        let written = || std::fs::metadata(&path).unwrap().ino();
        let first = written();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        Secrets::load(folder.path()).unwrap();
        assert_eq!(written(), first, "it is the same file");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        secrets.admin_token = "another".to_owned();
        secrets.store(folder.path()).unwrap();
        assert_eq!(Secrets::read(folder.path()).unwrap().admin_token, "another");
    }

    #[test]
    fn a_secret_comes_from_the_environment_or_from_a_file_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "from a file\n").unwrap();
        let file = file.display().to_string();
        let environment = |pairs: Vec<(&'static str, String)>| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
        };
        let named = vec![("KEY", String::new()), ("KEY_FILE", file.clone())];
        assert_eq!(given("KEY", environment(named)).unwrap().as_deref(), Some("from a file"));
        let both = vec![("KEY", "itself".to_owned()), ("KEY_FILE", file.clone())];
        assert_eq!(given("KEY", environment(both)).unwrap().as_deref(), Some("itself"));
        assert_eq!(given("KEY", environment(Vec::new())).unwrap(), None);
        assert!(given("KEY", environment(vec![("KEY_FILE", format!("{file}.not"))])).is_err());
    }

    #[test]
    fn a_key_is_what_meilisearch_derives() {
        let secrets = Secrets {
            master_key: "masterKey".into(),
            gateway_secret: String::new(),
            admin_token: String::new(),
        };
        let uid = Uuid::parse_str("74c9c733-3368-4738-bbe5-1d18a5fecb37").unwrap();
        let text = secrets.key_text(uid);
        assert_eq!(text.len(), 64);
        assert!(same(&text, &text.clone()) && !same(&text, "no"));
    }
}
