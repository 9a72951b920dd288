//! Creates the embedders of an index.

use std::collections::HashMap;
use std::sync::Arc;

use milli_core::vector::{Embedder, EmbeddingConfigs};
use milli_core::{Index, heed};

use crate::error::{ApiError, Result};

/// The number of texts whose embedding is cached: none, because embedders other than user-provided ones are rare here.
const CACHE: usize = 0;

/// Creates the embedders that the settings of the index describe.
pub fn of_index(index: &Index, rtxn: &heed::RoTxn<'_>) -> Result<EmbeddingConfigs> {
    let mut embedders = HashMap::new();
    for config in index.embedding_configs(rtxn)? {
        let quantized = config.config.quantized();
        let embedder = Embedder::new(config.config.embedder_options, CACHE)
            .map_err(milli_core::vector::Error::from)
            .map_err(milli_core::UserError::from)
            .map_err(ApiError::from)?;
        let prompt = config.config.prompt.try_into().map_err(milli_core::Error::from)?;
        embedders.insert(config.name, (Arc::new(embedder), Arc::new(prompt), quantized));
    }
    Ok(EmbeddingConfigs::new(embedders))
}
