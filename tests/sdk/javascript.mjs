// The JavaScript client's surface, against one address: prints what every call gave, one JSON line each.
//
// Usage: javascript.mjs URL KEY FOLDER, where FOLDER has `node_modules/meilisearch`. What differs between any two servers
// (times, keys' texts, sizes) is left out.
import { createRequire } from "node:module";

const [url, apiKey, folder] = process.argv.slice(2);
const { Meilisearch } = createRequire(`${folder}/`)("meilisearch");

const VOLATILE = new Set([
  "createdAt", "updatedAt", "enqueuedAt", "startedAt", "finishedAt", "duration", "processingTimeMs", "key", "databaseSize",
  "usedDatabaseSize", "rawDocumentDbSize", "avgDocumentSize", "lastUpdate", "commitSha", "commitDate", "taskUid", "batchUid",
  "requestUid", "dumpUid", "progress", "numberOfEmbeddedDocuments", "numberOfEmbeddings", "indexUidOfClient",
]);

const plain = (value) => {
  if (value instanceof Date) return "moment";
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    const entries = Object.entries(value).filter(([name, item]) => !VOLATILE.has(name) && name !== "httpRequest" && name !== "tasks" && typeof item !== "function");
    return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, item]) => [name, plain(item)]));
  }
  return value;
};

async function said(name, call) {
  try {
    const result = await call();
    console.log(JSON.stringify([name, plain(result) ?? null]));
    return result;
  } catch (error) {
    const cause = error.cause;
    console.log(JSON.stringify([name, cause?.code ? { error: cause.code, message: cause.message, type: cause.type } : { exception: error.name }]));
    return null;
  }
}

const done = (name, call) => said(name, () => call().waitTask({ timeout: 60_000, interval: 20 }));

const client = new Meilisearch({ host: url, apiKey });
const films = client.index("films");
const FILMS = [
  { id: 1, title: "Carol", genres: ["Romance", "Drama"], year: 2015 },
  { id: 2, title: "Wonder Woman", genres: ["Action", "Adventure"], year: 2017 },
  { id: 3, title: "Life of Pi", genres: ["Adventure", "Drama"], year: 2012 },
  { id: 4, title: "Mad Max: Fury Road", genres: ["Adventure", "Science Fiction"], year: 2015 },
  { id: 5, title: "Moana", genres: ["Fantasy", "Action"], year: 2016 },
  { id: 6, title: "Philadelphia", genres: ["Drama"], year: 1993 },
];

await said("health", () => client.health());
await said("isHealthy", () => client.isHealthy());
await said("getVersion", async () => (await client.getVersion()).pkgVersion.slice(0, 1));

await done("createIndex", () => client.createIndex("films", { primaryKey: "id" }));
await done("createIndex again", () => client.createIndex("films"));
await done("createIndex books", () => client.createIndex("books"));
await said("getIndexes", () => client.getIndexes({ limit: 5 }));
await said("getRawIndex", () => client.getRawIndex("films"));
await said("getIndex of none", () => client.getIndex("nothing"));
await done("updateIndex", () => client.updateIndex("books", { primaryKey: "isbn" }));
await said("fetchInfo", () => films.fetchInfo());

await done("addDocuments", () => films.addDocuments(FILMS));
await done("updateDocuments", () => films.updateDocuments([{ id: 6, rating: 7.7 }]));
await done("addDocumentsFromString", () => films.addDocumentsFromString('{"id":7,"title":"Elephant"}\n{"id":8,"title":"Alien"}', "application/x-ndjson"));
await done("csv", () => films.addDocumentsFromString("id,title\n9,Heat", "text/csv"));
await done("a document without its id", () => films.addDocuments([{ title: "none" }]));
await said("getDocument", () => films.getDocument(1));
await said("getDocument of none", () => films.getDocument(99));
await said("getDocuments", () => films.getDocuments({ limit: 3, offset: 1, fields: ["id", "title"] }));
await done("updateFilterableAttributes", () => films.updateFilterableAttributes(["genres", "year"]));
await done("updateSortableAttributes", () => films.updateSortableAttributes(["year", "title"]));
await said("getDocuments with a filter", () => films.getDocuments({ filter: "year > 2014", limit: 10 }));
await done("deleteDocument", () => films.deleteDocument(9));
await done("deleteDocuments", () => films.deleteDocuments([7, 8, 77]));
await done("deleteDocuments by filter", () => films.deleteDocuments({ filter: "year = 1993" }));
await said("getStats of an index", () => films.getStats());
await done("put back", () => films.addDocuments(FILMS));

for (const [name, query, options] of [
  ["placeholder", "", { limit: 2 }],
  ["typo", "wondr", { attributesToHighlight: ["*"], showMatchesPosition: true }],
  ["facets", "", { filter: ["genres = Adventure"], facets: ["*"], sort: ["year:desc"] }],
  ["pages", "", { hitsPerPage: 2, page: 2, sort: ["title:asc"] }],
  ["score", "life", { showRankingScore: true, showRankingScoreDetails: true }],
  ["crop", "fury", { attributesToCrop: ["title"], cropLength: 2 }],
  ["distinct", "", { distinct: "year", sort: ["year:asc", "title:asc"] }],
  ["bad filter", "", { filter: "nope = 1" }],
]) {
  await said(`search: ${name}`, () => films.search(query, options));
  await said(`searchGet: ${name}`, () => films.searchGet(query, { ...options, filter: options.filter && String(options.filter) }));
}
await said("searchForFacetValues", () => films.searchForFacetValues({ facetName: "genres", facetQuery: "dra" }));
await said("multiSearch", () => client.multiSearch({ queries: [{ indexUid: "films", q: "carol" }, { indexUid: "books", q: "" }] }));
await said("multiSearch, federated", () => client.multiSearch({ federation: { limit: 3 }, queries: [{ indexUid: "films", q: "moana" }, { indexUid: "films", q: "carol", federationOptions: { weight: 0.5 } }] }));

await done("updateSettings", () => films.updateSettings({ synonyms: { film: ["movie"] }, stopWords: ["of"], rankingRules: ["words", "typo", "year:desc"], pagination: { maxTotalHits: 50 } }));
await said("getSettings", () => films.getSettings());
for (const [name, value] of [
  ["Synonyms", { a: ["b"] }], ["StopWords", ["the"]], ["RankingRules", ["words"]], ["DistinctAttribute", "year"],
  ["SearchableAttributes", ["title"]], ["DisplayedAttributes", ["id", "title"]], ["TypoTolerance", { enabled: false }],
  ["Faceting", { maxValuesPerFacet: 3 }], ["Pagination", { maxTotalHits: 9 }], ["SeparatorTokens", ["|"]],
  ["NonSeparatorTokens", ["#"]], ["Dictionary", ["J. R."]], ["ProximityPrecision", "byAttribute"], ["SearchCutoffMs", 100],
]) {
  await done(`update${name}`, () => films[`update${name}`](value));
  await said(`get${name}`, () => films[`get${name}`]());
  await done(`reset${name}`, () => films[`reset${name}`]());
  await said(`get${name} again`, () => films[`get${name}`]());
}
await done("resetSettings", () => films.resetSettings());

const uid = "7a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a32";
const key = await said("createKey", () => client.createKey({ uid, name: "js", actions: ["search"], indexes: ["films"], expiresAt: null }));
await said("getKey", () => client.getKey(uid));
await said("updateKey", () => client.updateKey(uid, { name: "other" }));
await said("getKeys", async () => (await client.getKeys({ limit: 100 })).results.map(({ name }) => name).sort());
const searcher = new Meilisearch({ host: url, apiKey: key.key });
await said("search under a key", () => searcher.index("films").search("carol"));
await said("add under it", () => searcher.index("films").addDocuments([{ id: 9 }]));
await said("keys under it", () => searcher.getKeys());
await said("deleteKey", () => client.deleteKey(uid));

await said("getTasks", async () => (await client.tasks.getTasks({ types: ["indexCreation"] })).results.map(({ type, status }) => [type, status]));
await said("getTask of none", () => client.tasks.getTask(999999));
await said("getBatches", async () => (await client.batches.getBatches({ limit: 1 })).results.length);
await done("cancelTasks", () => client.tasks.cancelTasks({ uids: [0, 1] }));
await done("deleteTasks", () => client.tasks.deleteTasks({ uids: [0, 1] }));
await done("swapIndexes", () => client.swapIndexes([{ indexes: ["films", "books"] }]));
await said("getStats", async () => Object.entries((await client.getStats()).indexes).map(([name, { numberOfDocuments }]) => [name, numberOfDocuments]));
await done("createDump", () => client.createDump());
await done("createSnapshot", () => client.createSnapshot());
await done("deleteAllDocuments", () => client.index("books").deleteAllDocuments());
await done("deleteIndex", () => client.deleteIndex("books"));
await done("deleteIndex of none", () => client.deleteIndex("books"));
