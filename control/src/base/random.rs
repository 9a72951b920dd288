//! Where randomness comes from. Whatever needs it gets a source, so that a simulation can repeat a history from its seed.

use std::{fmt::Debug, sync::Arc};
use uuid::{Builder, Uuid};

/// A source of random bits.
pub trait Random: Debug + Send + Sync {
    /// Random bytes: keys and secrets are made of them.
    fn bytes(&self) -> [u8; 16];

    /// A random UUID, of version 4.
    fn uuid(&self) -> Uuid {
        Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// A random name of 32 hexadecimal digits.
    fn name(&self) -> String {
        self.uuid().simple().to_string()
    }
}

/// The source of whoever shares the cluster's state.
pub type SharedRandom = Arc<dyn Random>;

/// The operating system's source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn bytes(&self) -> [u8; 16] {
        Uuid::new_v4().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the same bytes each time.
    #[derive(Debug)]
    struct Fixed;

    impl Random for Fixed {
        fn bytes(&self) -> [u8; 16] {
            [0xff; 16]
        }
    }

    #[test]
    fn what_is_made_follows_from_the_source() {
        assert_eq!(Fixed.uuid().get_version_num(), 4);
        assert_eq!(Fixed.name(), "ffffffffffff4fffbfffffffffffffff");
        assert_ne!(SystemRandom.name(), SystemRandom.name());
    }
}
