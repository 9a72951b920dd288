//! Meilisearch's error codes, each with its HTTP status and its type.

/// A code known at compile time, so that a deserialization error can carry it in its type.
pub trait MarkerCode: Default {
    /// The code itself.
    const CODE: Code;
}

macro_rules! codes {
    ($($name:ident $status:literal $kind:literal,)*) => {
        /// Every error code that this node can answer with.
        // The variants are named after the codes that clients see.
        #[allow(clippy::enum_variant_names)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($name),* }

        impl Code {
            /// The variant's name, the HTTP status and the type.
            pub(super) fn parts(self) -> (&'static str, u16, &'static str) {
                match self { $(Code::$name => (stringify!($name), $status, $kind)),* }
            }
        }

        /// One unit type for each code, for use as a type parameter.
        // The table contains all codes, but not every code is the code of a field.
        #[allow(dead_code)]
        pub mod marker {
            use super::{Code, MarkerCode};
            $(
                #[derive(Debug, Default, Clone, Copy)]
                pub struct $name;
                impl MarkerCode for $name { const CODE: Code = Code::$name; }
            )*
        }
    };
}

codes! {
    ApiKeyAlreadyExists 409 "invalid_request",
    ApiKeyNotFound 404 "invalid_request",
    IndexScopedApiKeyWithGlobalAction 400 "invalid_request",
    BadParameter 400 "invalid_request",
    BadRequest 400 "invalid_request",
    DatabaseSizeLimitReached 500 "internal",
    DocumentNotFound 404 "invalid_request",
    DuplicateIndexFound 400 "invalid_request",
    ImmutableApiKeyActions 400 "invalid_request",
    ImmutableApiKeyCreatedAt 400 "invalid_request",
    ImmutableApiKeyExpiresAt 400 "invalid_request",
    ImmutableApiKeyIndexes 400 "invalid_request",
    ImmutableApiKeyKey 400 "invalid_request",
    ImmutableApiKeyUid 400 "invalid_request",
    ImmutableApiKeyUpdatedAt 400 "invalid_request",
    ImmutableIndexCreatedAt 400 "invalid_request",
    ImmutableIndexUpdatedAt 400 "invalid_request",
    ImmutableWebhook 400 "invalid_request",
    InvalidWebhookHeaders 400 "invalid_request",
    InvalidWebhookUrl 400 "invalid_request",
    WebhookNotFound 404 "invalid_request",
    IndexAlreadyExists 409 "invalid_request",
    IndexCreationFailed 500 "internal",
    IndexNotFound 404 "invalid_request",
    IndexPrimaryKeyAlreadyExists 400 "invalid_request",
    IndexPrimaryKeyMultipleCandidatesFound 400 "invalid_request",
    IndexPrimaryKeyNoCandidateFound 400 "invalid_request",
    Internal 500 "internal",
    InvalidApiKey 403 "auth",
    InvalidApiKeyActions 400 "invalid_request",
    InvalidApiKeyDescription 400 "invalid_request",
    InvalidApiKeyExpiresAt 400 "invalid_request",
    InvalidApiKeyIndexes 400 "invalid_request",
    InvalidApiKeyLimit 400 "invalid_request",
    InvalidApiKeyName 400 "invalid_request",
    InvalidApiKeyOffset 400 "invalid_request",
    InvalidApiKeyUid 400 "invalid_request",
    InvalidContentType 415 "invalid_request",
    InvalidDocumentCsvDelimiter 400 "invalid_request",
    InvalidDocumentFields 400 "invalid_request",
    InvalidDocumentRetrieveVectors 400 "invalid_request",
    MissingDocumentFilter 400 "invalid_request",
    MissingDocumentEditionFunction 400 "invalid_request",
    InconsistentDocumentChangeHeaders 400 "invalid_request",
    InvalidDocumentFilter 400 "invalid_request",
    InvalidDocumentSort 400 "invalid_request",
    InvalidDocumentUseNetwork 400 "invalid_request",
    InvalidDocumentGeoField 400 "invalid_request",
    InvalidDocumentGeojsonField 400 "invalid_request",
    InvalidHeaderValue 400 "invalid_request",
    InvalidVectorDimensions 400 "invalid_request",
    InvalidVectorsType 400 "invalid_request",
    InvalidDocumentId 400 "invalid_request",
    InvalidDocumentIds 400 "invalid_request",
    InvalidDocumentLimit 400 "invalid_request",
    InvalidDocumentOffset 400 "invalid_request",
    InvalidSearchEmbedder 400 "invalid_request",
    InvalidSimilarEmbedder 400 "invalid_request",
    InvalidSearchHybridQuery 400 "invalid_request",
    InvalidIndexLimit 400 "invalid_request",
    InvalidIndexOffset 400 "invalid_request",
    InvalidIndexPrimaryKey 400 "invalid_request",
    InvalidIndexCustomMetadata 400 "invalid_request",
    InvalidSkipCreation 400 "invalid_request",
    InvalidIndexUid 400 "invalid_request",
    InvalidMultiSearchFacets 400 "invalid_request",
    InvalidMultiSearchFacetsByIndex 400 "invalid_request",
    InvalidMultiSearchFacetOrder 400 "invalid_request",
    InvalidMultiSearchQueryShowPerformanceDetails 400 "invalid_request",
    InvalidMultiSearchFederated 400 "invalid_request",
    InvalidMultiSearchFederationOptions 400 "invalid_request",
    InvalidMultiSearchMaxValuesPerFacet 400 "invalid_request",
    InvalidMultiSearchMergeFacets 400 "invalid_request",
    InvalidMultiSearchQueryFacets 400 "invalid_request",
    InvalidMultiSearchDistinct 400 "invalid_request",
    InvalidMultiSearchQueryPagination 400 "invalid_request",
    InvalidMultiSearchQueryRankingRules 400 "invalid_request",
    InvalidMultiSearchQueryPosition 400 "invalid_request",
    InvalidMultiSearchRemote 400 "invalid_request",
    InvalidMultiSearchWeight 400 "invalid_request",
    InvalidSearchAttributesToSearchOn 400 "invalid_request",
    InvalidSearchAttributesToCrop 400 "invalid_request",
    InvalidSearchAttributesToHighlight 400 "invalid_request",
    InvalidSimilarAttributesToRetrieve 400 "invalid_request",
    InvalidSimilarRetrieveVectors 400 "invalid_request",
    InvalidSearchAttributesToRetrieve 400 "invalid_request",
    InvalidSearchRankingScoreThreshold 400 "invalid_request",
    InvalidSimilarRankingScoreThreshold 400 "invalid_request",
    InvalidSearchRetrieveVectors 400 "invalid_request",
    InvalidSearchCropLength 400 "invalid_request",
    InvalidSearchCropMarker 400 "invalid_request",
    InvalidSearchFacets 400 "invalid_request",
    InvalidSearchSemanticRatio 400 "invalid_request",
    InvalidSearchLocales 400 "invalid_request",
    InvalidFacetSearchExhaustiveFacetCount 400 "invalid_request",
    InvalidFacetSearchFacetName 400 "invalid_request",
    InvalidSimilarId 400 "invalid_request",
    InvalidSearchFilter 400 "invalid_request",
    InvalidSimilarFilter 400 "invalid_request",
    InvalidSearchHighlightPostTag 400 "invalid_request",
    InvalidSearchHighlightPreTag 400 "invalid_request",
    InvalidSearchHitsPerPage 400 "invalid_request",
    InvalidSimilarLimit 400 "invalid_request",
    InvalidSearchLimit 400 "invalid_request",
    InvalidSearchMatchingStrategy 400 "invalid_request",
    InvalidSimilarOffset 400 "invalid_request",
    InvalidSearchOffset 400 "invalid_request",
    InvalidSearchPage 400 "invalid_request",
    InvalidSearchQ 400 "invalid_request",
    InvalidFacetSearchQuery 400 "invalid_request",
    InvalidFacetSearchName 400 "invalid_request",
    FacetSearchDisabled 400 "invalid_request",
    InvalidSearchVector 400 "invalid_request",
    InvalidSearchMedia 400 "invalid_request",
    InvalidSearchShowMatchesPosition 400 "invalid_request",
    InvalidSearchShowRankingScore 400 "invalid_request",
    InvalidSimilarShowRankingScore 400 "invalid_request",
    InvalidSearchShowRankingScoreDetails 400 "invalid_request",
    InvalidSearchShowPerformanceDetails 400 "invalid_request",
    InvalidSearchUseNetwork 400 "invalid_request",
    InvalidSimilarShowRankingScoreDetails 400 "invalid_request",
    InvalidSimilarShowPerformanceDetails 400 "invalid_request",
    InvalidSearchSort 400 "invalid_request",
    InvalidSearchDistinct 400 "invalid_request",
    InvalidSearchPersonalize 400 "invalid_request",
    InvalidSearchPersonalizeUserContext 400 "invalid_request",
    InvalidSearchMediaAndVector 400 "invalid_request",
    InvalidSettingsDisplayedAttributes 400 "invalid_request",
    InvalidSettingsDistinctAttribute 400 "invalid_request",
    InvalidSettingsProximityPrecision 400 "invalid_request",
    InvalidSettingsFacetSearch 400 "invalid_request",
    InvalidSettingsPrefixSearch 400 "invalid_request",
    InvalidSettingsFaceting 400 "invalid_request",
    InvalidSettingsFilterableAttributes 400 "invalid_request",
    InvalidSettingsForeignKeys 400 "invalid_request",
    InvalidSettingsPagination 400 "invalid_request",
    InvalidSettingsSearchCutoffMs 400 "invalid_request",
    InvalidSettingsEmbedders 400 "invalid_request",
    InvalidSettingsRankingRules 400 "invalid_request",
    InvalidSettingsSearchableAttributes 400 "invalid_request",
    InvalidSettingsSortableAttributes 400 "invalid_request",
    InvalidSettingsStopWords 400 "invalid_request",
    InvalidSettingsNonSeparatorTokens 400 "invalid_request",
    InvalidSettingsSeparatorTokens 400 "invalid_request",
    InvalidSettingsDictionary 400 "invalid_request",
    InvalidSettingsSynonyms 400 "invalid_request",
    InvalidSettingsTypoTolerance 400 "invalid_request",
    InvalidSettingsLocalizedAttributes 400 "invalid_request",
    InvalidState 500 "internal",
    InvalidStatsShowInternalDatabaseSizes 400 "invalid_request",
    InvalidStatsSizeFormat 400 "invalid_request",
    InvalidStoreFile 500 "internal",
    InvalidSwapDuplicateIndexFound 400 "invalid_request",
    InvalidSwapIndexes 400 "invalid_request",
    InvalidSwapRename 400 "invalid_request",
    InvalidTaskAfterEnqueuedAt 400 "invalid_request",
    InvalidTaskAfterFinishedAt 400 "invalid_request",
    InvalidTaskAfterStartedAt 400 "invalid_request",
    InvalidTaskBeforeEnqueuedAt 400 "invalid_request",
    InvalidTaskBeforeFinishedAt 400 "invalid_request",
    InvalidTaskBeforeStartedAt 400 "invalid_request",
    InvalidTaskCanceledBy 400 "invalid_request",
    InvalidTaskFrom 400 "invalid_request",
    InvalidTaskLimit 400 "invalid_request",
    InvalidTaskReverse 400 "invalid_request",
    InvalidTaskStatuses 400 "invalid_request",
    InvalidTaskTypes 400 "invalid_request",
    InvalidTaskUids 400 "invalid_request",
    InvalidBatchUids 400 "invalid_request",
    IoError 422 "system",
    FeatureNotEnabled 400 "invalid_request",
    MalformedPayload 400 "invalid_request",
    MaxFieldsLimitExceeded 400 "invalid_request",
    MissingApiKeyActions 400 "invalid_request",
    MissingApiKeyExpiresAt 400 "invalid_request",
    MissingApiKeyIndexes 400 "invalid_request",
    MissingAuthorizationHeader 401 "auth",
    MissingContentType 415 "invalid_request",
    MissingDocumentId 400 "invalid_request",
    MissingFacetSearchFacetName 400 "invalid_request",
    MissingIndexUid 400 "invalid_request",
    MissingMasterKey 401 "auth",
    MissingPayload 400 "invalid_request",
    MissingSearchHybrid 400 "invalid_request",
    MissingSwapIndexes 400 "invalid_request",
    MissingTaskFilters 400 "invalid_request",
    NoSpaceLeftOnDevice 422 "system",
    NotLeader 400 "invalid_request",
    PayloadTooLarge 413 "invalid_request",
    TooManySearchRequests 503 "system",
    TaskNotFound 404 "invalid_request",
    TaskFileNotFound 404 "invalid_request",
    BatchNotFound 404 "invalid_request",
    TooManyOpenFiles 422 "system",
    TooManyVectors 400 "invalid_request",
    UnretrievableDocument 400 "internal",
    UnretrievableErrorCode 400 "invalid_request",
    UnsupportedMediaType 415 "invalid_request",
    VectorEmbeddingError 400 "invalid_request",
    NotFoundSimilarId 400 "invalid_request",
    InvalidDocumentEditionContext 400 "invalid_request",
    InvalidDocumentEditionFunctionFilter 400 "invalid_request",
    EditDocumentsByFunctionError 400 "invalid_request",
    InvalidSettingsIndexChat 400 "invalid_request",
    RequiresEnterpriseEdition 451 "invalid_request",
}

impl Code {
    /// The code as clients see it: the variant's name in snake case.
    pub fn name(self) -> String {
        let mut name = String::new();
        for (i, c) in self.parts().0.char_indices() {
            if c.is_ascii_uppercase() && i > 0 {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }
}
