//! The actions that an API key may allow.

/// How an action relates to the indexes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Concerns the whole node: a key that is limited to some indexes cannot have it.
    Global,
    /// Allowed if the key covers any index; the handler then checks each index.
    ByHandler,
    /// Allowed only for an index that the key covers.
    ByIndex,
}

macro_rules! actions {
    ($($name:ident $text:literal $read:literal $scope:ident,)*) => {
        /// One action, or a group of actions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action { $(
            #[allow(missing_docs, dead_code)]
            $name
        ),* }

        impl Action {
            const EVERY: &[Action] = &[$(Action::$name),*];
            const NAMES: [&'static str; Action::EVERY.len()] = [$($text),*];

            /// The action's name in JSON.
            pub fn name(self) -> &'static str {
                match self { $(Action::$name => $text),* }
            }

            fn is_read(self) -> bool {
                match self { $(Action::$name => $read),* }
            }

            /// How the action relates to a key's indexes.
            pub fn scope(self) -> Scope {
                match self { $(Action::$name => Scope::$scope),* }
            }
        }
    };
}

actions! {
    All "*" false ByIndex,
    Search "search" true ByHandler,
    DocumentsAll "documents.*" false ByIndex,
    DocumentsAdd "documents.add" false ByIndex,
    DocumentsGet "documents.get" true ByHandler,
    DocumentsDelete "documents.delete" false ByIndex,
    IndexesAll "indexes.*" false ByIndex,
    IndexesAdd "indexes.create" false ByHandler,
    IndexesGet "indexes.get" true ByHandler,
    IndexesUpdate "indexes.update" false ByIndex,
    IndexesDelete "indexes.delete" false ByIndex,
    IndexesSwap "indexes.swap" false ByHandler,
    TasksAll "tasks.*" false ByIndex,
    TasksCancel "tasks.cancel" false ByHandler,
    TasksDelete "tasks.delete" false ByHandler,
    TasksGet "tasks.get" true ByHandler,
    SettingsAll "settings.*" false ByIndex,
    SettingsGet "settings.get" true ByHandler,
    SettingsUpdate "settings.update" false ByIndex,
    StatsAll "stats.*" false ByHandler,
    StatsGet "stats.get" true ByHandler,
    MetricsAll "metrics.*" false Global,
    MetricsGet "metrics.get" true Global,
    DumpsAll "dumps.*" false Global,
    DumpsCreate "dumps.create" false Global,
    SnapshotsAll "snapshots.*" false Global,
    SnapshotsCreate "snapshots.create" false Global,
    Version "version" true Global,
    KeysAdd "keys.create" false Global,
    KeysGet "keys.get" false Global,
    KeysUpdate "keys.update" false Global,
    KeysDelete "keys.delete" false Global,
    ExperimentalFeaturesGet "experimental.get" true Global,
    ExperimentalFeaturesUpdate "experimental.update" false Global,
    Export "export" true Global,
    NetworkGet "network.get" true Global,
    NetworkUpdate "network.update" false Global,
    ChatCompletions "chatCompletions" false ByHandler,
    ChatsAll "chats.*" false Global,
    ChatsGet "chats.get" true Global,
    ChatsDelete "chats.delete" false Global,
    ChatsSettingsAll "chatsSettings.*" false Global,
    ChatsSettingsGet "chatsSettings.get" true Global,
    ChatsSettingsUpdate "chatsSettings.update" false Global,
    AllGet "*.get" false ByIndex,
    WebhooksGet "webhooks.get" true Global,
    WebhooksUpdate "webhooks.update" false Global,
    WebhooksDelete "webhooks.delete" false Global,
    WebhooksCreate "webhooks.create" false Global,
    WebhooksAll "webhooks.*" false Global,
    IndexesCompact "indexes.compact" false ByIndex,
    FieldsPost "fields.post" true ByIndex,
    TasksCompact "tasks.compact" false Global,
    DynamicSearchRulesGet "dynamicSearchRules.get" true Global,
    DynamicSearchRulesCreate "dynamicSearchRules.create" false Global,
    DynamicSearchRulesUpdate "dynamicSearchRules.update" false Global,
    DynamicSearchRulesDelete "dynamicSearchRules.delete" false Global,
    DynamicSearchRulesAll "dynamicSearchRules.*" false Global,
}

impl Action {
    /// The action with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::EVERY.iter().copied().find(|action| action.name() == name)
    }

    /// Whether a key with the action `self` may do `wanted`. A group stands for its members, but not for itself: as in
    /// Meilisearch, a route that requires `documents.*` accepts only `*`.
    pub fn grants(self, wanted: Action) -> bool {
        match self.name() {
            "*" => true,
            "*.get" => wanted.is_read(),
            own if own == wanted.name() => !own.ends_with('*'),
            own => own.strip_suffix('*').is_some_and(|group| wanted.name().starts_with(group)),
        }
    }
}

impl serde::Serialize for Action {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Action {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("unknown action `{name}`")))
    }
}

impl<E: deserr::DeserializeError> deserr::Deserr<E> for Action {
    fn deserialize_from_value<V: deserr::IntoValue>(
        value: deserr::Value<V>,
        at: deserr::ValuePointerRef<'_>,
    ) -> Result<Self, E> {
        let error = match value {
            deserr::Value::String(name) => match Self::from_name(&name) {
                Some(action) => return Ok(action),
                None => E::error::<V>(
                    None,
                    deserr::ErrorKind::UnknownValue { value: &name, accepted: &Self::NAMES },
                    at,
                ),
            },
            actual => {
                let kind =
                    deserr::ErrorKind::IncorrectValueKind { actual, accepted: &[deserr::ValueKind::String] };
                E::error(None, kind, at)
            }
        };
        Err(deserr::take_cf_content(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_grant_their_members() {
        assert!(Action::DocumentsAll.grants(Action::DocumentsAdd));
        assert!(!Action::DocumentsAll.grants(Action::DocumentsAll));
        assert!(!Action::DocumentsAll.grants(Action::IndexesGet));
        assert!(Action::AllGet.grants(Action::Search) && !Action::AllGet.grants(Action::KeysGet));
        assert!(Action::All.grants(Action::KeysDelete));
        assert_eq!(Action::from_name("documents.add"), Some(Action::DocumentsAdd));
    }
}
