//! How commands look when they travel: spans in whole milliseconds, members of a batch by name.

use crate::time::millis;
use std::time::Duration;

/// A span that may be missing, as a number of milliseconds.
pub(super) mod millis_or_none {
    use super::{Duration, millis};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(millis).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// The members of a batch: `"file:a"`, or `{"resource": "file:a", "mode": "shared"}`.
pub(super) mod wants {
    use crate::{LockMode, Resource};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Want {
        Whole {
            resource: Resource,
            #[serde(default)]
            mode: LockMode,
        },
        Bare(Resource),
    }

    pub(in super::super) fn serialize<S: Serializer>(
        wants: &[(Resource, LockMode)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let whole = |(resource, mode): &(Resource, LockMode)| Want::Whole {
            resource: resource.clone(),
            mode: *mode,
        };
        serializer.collect_seq(wants.iter().map(whole))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(Resource, LockMode)>, D::Error> {
        let wants = Vec::<Want>::deserialize(deserializer)?;
        Ok(wants
            .into_iter()
            .map(|want| match want {
                Want::Whole { resource, mode } => (resource, mode),
                Want::Bare(resource) => (resource, LockMode::default()),
            })
            .collect())
    }
}
