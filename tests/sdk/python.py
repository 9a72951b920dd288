"""The Python client's whole surface, against one address: prints what every call gave, one JSON line each.

Usage: python.py URL KEY. What differs between any two servers (times, uids of keys, sizes) is left out.
"""

import csv
import datetime
import io
import json
import sys

from meilisearch import Client
from meilisearch.errors import MeilisearchApiError, MeilisearchError

URL, KEY = sys.argv[1:3]
VOLATILE = {
    "createdAt", "created_at", "updatedAt", "updated_at", "enqueuedAt", "enqueued_at", "startedAt", "started_at",
    "finishedAt", "finished_at", "duration", "processingTimeMs", "key", "uid_of_key", "databaseSize", "usedDatabaseSize",
    "rawDocumentDbSize", "avgDocumentSize", "lastUpdate", "commitSha", "commitDate", "taskUid", "task_uid", "batchUid",
    "batch_uid", "requestUid", "dumpUid", "dump_uid", "progress", "numberOfEmbeddedDocuments", "numberOfEmbeddings",
}


def plain(value):
    """A value without what is volatile."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in VOLATILE}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, datetime.datetime):
        return "moment"
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if hasattr(value, "__dict__"):
        public = {name: item for name, item in vars(value).items() if name not in ("config", "http", "task_handler")}
        return plain({name.lstrip("_").split("__")[-1]: item for name, item in public.items()})
    return str(value)


def said(name, call, *arguments, **named):
    """Calls, prints, and gives what came."""
    try:
        result = call(*arguments, **named)
        told = plain(result)
    except MeilisearchApiError as error:
        result, told = None, {"error": error.code, "type": error.type, "message": error.message}
    except MeilisearchError as error:
        result, told = None, {"exception": type(error).__name__}
    print(json.dumps([name, told], sort_keys=True, ensure_ascii=False), flush=True)
    return result


client = Client(URL, KEY)


def done(name, call, *arguments, **named):
    """Calls what gives a task, and waits for it."""
    task = said(name, call, *arguments, **named)
    if task is not None:
        uid = task["taskUid"] if isinstance(task, dict) else task.task_uid
        said(name + ": task", client.wait_for_task, uid, timeout_in_ms=60_000)
    return task


FILMS = [
    {"id": 1, "title": "Carol", "genres": ["Romance", "Drama"], "year": 2015, "_geo": {"lat": 48.85, "lng": 2.35}},
    {"id": 2, "title": "Wonder Woman", "genres": ["Action", "Adventure"], "year": 2017, "_geo": {"lat": 50.85, "lng": 4.35}},
    {"id": 3, "title": "Life of Pi", "genres": ["Adventure", "Drama"], "year": 2012},
    {"id": 4, "title": "Mad Max: Fury Road", "genres": ["Adventure", "Science Fiction"], "year": 2015},
    {"id": 5, "title": "Moana", "genres": ["Fantasy", "Action"], "year": 2016},
    {"id": 6, "title": "Philadelphia", "genres": ["Drama"], "year": 1993},
]

# The server.
said("health", client.health)
said("is_healthy", client.is_healthy)
said("version", lambda: client.get_version()["pkgVersion"][:1])

# Indexes.
done("create_index", client.create_index, "films", {"primaryKey": "id"})
done("create_index again", client.create_index, "films", {"primaryKey": "id"})
said("create_index with a bad uid", client.create_index, "no good!")
films = client.index("films")
said("get_index", client.get_index, "films")
said("get_raw_index", client.get_raw_index, "films")
said("get_index of none", client.get_index, "nothing")
done("create a second", client.create_index, "books")
said("get_indexes", client.get_indexes, {"limit": 10})
said("get_raw_indexes", client.get_raw_indexes, {"limit": 1, "offset": 1})
done("update", client.index("books").update, primary_key="isbn")
said("fetch_info", client.index("books").fetch_info)
said("get_primary_key", client.index("books").get_primary_key)

# Documents.
done("add_documents", films.add_documents, FILMS)
done("add_documents_in_batches: first", lambda: films.add_documents_in_batches(FILMS, batch_size=4)[-1])
done("update_documents", films.update_documents, [{"id": 6, "rating": 7.7}])
done("add_documents_ndjson", films.add_documents_ndjson, "\n".join(json.dumps(film) for film in FILMS).encode())
text = io.StringIO()
table = csv.writer(text, delimiter=";")
table.writerows([["id", "title", "year:number"], [7, "Elephant; Man", 1980]])
done("add_documents_csv", films.add_documents_csv, text.getvalue().encode(), csv_delimiter=";")
done("add_documents_json", films.add_documents_json, json.dumps([{"id": 8, "title": "Alien"}]).encode())
done("a document without its id", films.add_documents, [{"title": "none"}])
done("a document with a bad id", films.add_documents, [{"id": "a b"}])
said("bytes that are no JSON", films.add_documents_json, b'[{"id": 9')
said("get_document", films.get_document, 1)
said("get_document with fields", films.get_document, 6, {"fields": ["title", "rating"]})
said("get_document of none", films.get_document, 999)
said("get_documents", films.get_documents, {"limit": 3, "offset": 2, "fields": "id,title"})
done("update_filterable_attributes", films.update_filterable_attributes, ["genres", "year", "_geo"])
done("update_sortable_attributes", films.update_sortable_attributes, ["year", "title", "_geo"])
said("get_documents with a filter", films.get_documents, {"filter": "year > 2014", "limit": 10})
said("get_documents with a bad filter", films.get_documents, {"filter": "nope = 1"})
done("delete_document", films.delete_document, 8)
done("delete_documents", films.delete_documents, [7, 77])
done("delete_documents by filter", films.delete_documents, filter="year = 1993")
said("get_stats", films.get_stats)
done("put back", films.add_documents, FILMS)

# Searches.
for name, query, options in [
    ("placeholder", "", {"limit": 2}),
    ("word", "carol", {}),
    ("typo", "wondr", {"attributesToHighlight": ["*"], "showMatchesPosition": True}),
    ("filter and facets", "", {"filter": "genres = Adventure", "facets": ["*"], "sort": ["year:desc"]}),
    ("pages", "", {"hitsPerPage": 2, "page": 2, "sort": ["title:asc"]}),
    ("score", "life", {"showRankingScore": True, "showRankingScoreDetails": True}),
    ("geo", "", {"filter": "_geoRadius(48.85, 2.35, 300000)", "sort": ["_geoPoint(48.85, 2.35):asc"]}),
    ("crop", "fury", {"attributesToCrop": ["title"], "cropLength": 2, "cropMarker": "~"}),
    ("only title", "mad", {"attributesToSearchOn": ["title"], "attributesToRetrieve": ["title"]}),
    ("strategy", "mad moana", {"matchingStrategy": "all"}),
    ("threshold", "carol", {"rankingScoreThreshold": 0.9}),
    ("distinct", "", {"distinct": "year", "sort": ["year:asc", "title:asc"]}),
    ("bad filter", "", {"filter": "nope = 1"}),
    ("bad parameter", "", {"limit": "many"}),
]:
    said("search: " + name, films.search, query, options)
said("search in none", client.index("nothing").search, "")
said("multi_search", client.multi_search, [{"indexUid": "films", "q": "carol"}, {"indexUid": "books", "q": ""}])
said("multi_search, federated", client.multi_search, [{"indexUid": "films", "q": "moana"}, {"indexUid": "films", "q": "carol", "federationOptions": {"weight": 0.5}}], {"limit": 3})
said("facet_search", films.facet_search, "genres", "dra")
done("update_embedders", films.update_embedders, {"mine": {"source": "userProvided", "dimensions": 3}})
done("vectors", films.update_documents, [{"id": id, "_vectors": {"mine": [id, 1, 0.5]}} for id in range(1, 7)])
said("get_embedders", films.get_embedders)
said("search by vector", films.search, "", {"vector": [1, 1, 0.5], "hybrid": {"embedder": "mine", "semanticRatio": 1}, "limit": 3})
said("get_similar_documents", films.get_similar_documents, {"id": 1, "embedder": "mine", "limit": 2})
done("reset_embedders", films.reset_embedders)

# Settings, each by its own route.
for name, value in [
    ("ranking_rules", ["words", "typo", "year:desc"]), ("stop_words", ["of", "the"]),
    ("synonyms", {"film": ["movie"]}), ("searchable_attributes", ["title", "genres"]),
    ("displayed_attributes", ["id", "title", "year"]), ("distinct_attribute", "year"),
    ("typo_tolerance", {"enabled": False}), ("pagination_settings", {"maxTotalHits": 50}),
    ("faceting_settings", {"maxValuesPerFacet": 5}), ("separator_tokens", ["|"]), ("non_separator_tokens", ["#"]),
    ("dictionary", ["J. R. R."]), ("proximity_precision", "byAttribute"), ("search_cutoff_ms", 900),
    ("localized_attributes", [{"attributePatterns": ["title"], "locales": ["eng"]}]),
    ("facet_search_settings", False), ("prefix_search", "disabled"),
]:
    body = {"": value}[""]
    done("update_" + name, getattr(films, "update_" + name), body)
    said("get_" + name, getattr(films, "get_" + name))
said("get_settings", films.get_settings)
for name in ["ranking_rules", "stop_words", "synonyms", "displayed_attributes", "distinct_attribute", "faceting_settings", "filterable_attributes"]:
    done("reset_" + name, getattr(films, "reset_" + name))
    said("get_" + name, getattr(films, "get_" + name))
said("update_settings, wrong", films.update_settings, {"rankingRules": ["nope"]})
done("update_settings", films.update_settings, {"filterableAttributes": [{"attributePatterns": ["genres"], "features": {"facetSearch": True, "filter": {"equality": True, "comparison": False}}}]})
said("get_settings", films.get_settings)
done("reset_settings", films.reset_settings)
said("get_settings", films.get_settings)

# Keys and tenant tokens.
uid = "7a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a31"
made = said("create_key", client.create_key, {"uid": uid, "name": "search", "actions": ["search"], "indexes": ["films"], "expiresAt": None})
said("create_key again", client.create_key, {"uid": uid, "actions": ["search"], "indexes": ["films"], "expiresAt": None})
said("create_key with a bad action", client.create_key, {"actions": ["nope"], "indexes": ["films"], "expiresAt": None})
said("get_key", client.get_key, uid)
said("get_keys", lambda: sorted(str(key.name) for key in client.get_keys({"limit": 100}).results))
said("update_key", client.update_key, uid, {"name": "other", "description": "told"})
searcher = Client(URL, made.key)
said("search under a key", searcher.index("films").search, "carol")
said("search elsewhere under it", searcher.index("books").search, "")
said("add under it", searcher.index("films").add_documents, [{"id": 9}])
said("keys under it", searcher.get_keys)
said("tasks under it", searcher.get_tasks)
done("filterable again", films.update_filterable_attributes, ["year"])
token = client.generate_tenant_token(uid, {"films": {"filter": "year > 2014"}}, api_key=made.key)
said("search under a token", Client(URL, token).index("films").search, "", {"limit": 10})
said("add under a token", Client(URL, token).index("films").add_documents, [{"id": 9}])
said("no key", Client(URL).get_indexes)
said("wrong key", Client(URL, "wrong").index("films").search, "")
said("delete_key", client.delete_key, uid)
said("search under what is gone", searcher.index("films").search, "carol")

# Tasks and batches.
said("get_tasks", lambda: [task.type for task in client.get_tasks({"types": "indexCreation", "limit": 10}).results])
said("get_tasks of an index", lambda: client.get_tasks({"indexUids": "books", "statuses": "succeeded"}).total)
said("get_task of none", client.get_task, 999_999)
said("get_batches", lambda: len(client.get_batches({"limit": 1}).results))
done("cancel_tasks", client.cancel_tasks, {"uids": "0,1"})
done("delete_tasks", client.delete_tasks, {"uids": "0,1"})
said("cancel_tasks without a filter", client.cancel_tasks, {})

# The rest.
done("swap_indexes", client.swap_indexes, [{"indexes": ["films", "books"]}])
said("after the swap", lambda: client.index("books").get_stats().number_of_documents)
said("get_all_stats", lambda: {name: index["numberOfDocuments"] for name, index in client.get_all_stats()["indexes"].items()})
said("get_experimental_features", client.get_experimental_features)
said("update_experimental_features", client.update_experimental_features, {"editDocumentsByFunction": True})
done("update_documents_by_function", client.update_documents_by_function, "books", {"function": "doc.year = (doc.year ?? 0) + 1"})
said("after the edit", lambda: sorted((film.id, getattr(film, "year", None)) for film in client.index("books").get_documents({"limit": 20}).results))
done("create_dump", client.create_dump)
done("create_snapshot", client.create_snapshot)
done("delete_all_documents", client.index("books").delete_all_documents)
done("delete", client.index("books").delete)
done("delete_index of none", client.delete_index, "books")
