"""Starts a cluster of three nodes with two replicas, loads a data set, searches, kills a node and searches again.

`--once` ends after that, with status 0 if every step went well. Only Python's standard library is used.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from places import places

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIROIR = ROOT / "target" / "release" / "miroir"
DOCUMENTS = 6_000
BATCH = 1_000
PATIENCE = 180  # seconds for any one step
ADDRESS = "One Meilisearch, at "  # what the playground prints before its address
READY = "Logs are in"  # how the playground's last line begins


class Wrong(Exception):
    """A step failed."""


class Cluster:
    """A client of the cluster, as of one Meilisearch."""

    def __init__(self, url):
        self.url = url

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Wrong(f"{method} {path}: {error.code} {error.read().decode()}") from error
        except OSError as error:
            raise Wrong(f"{method} {path}: {error}") from error

    def finish(self, task):
        """Waits for a task to succeed."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self.ask("GET", f"/tasks/{task['taskUid']}")
            if found["status"] == "succeeded":
                return found
            if found["status"] in ("failed", "canceled"):
                raise Wrong(f"task {found['uid']} {found['status']}: {found['error']}")
            time.sleep(0.05)
        raise Wrong(f"task {task['taskUid']} is not done after {PATIENCE} s")

    def search(self, **query):
        begun = time.monotonic()
        answer = self.ask("POST", "/indexes/places/search", query)
        answer["milliseconds"] = (time.monotonic() - begun) * 1000
        return answer


def say(text=""):
    print(text, flush=True)


def headline(text):
    say(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def start(listen, data):
    """Starts the playground, shows its output, and returns when it is ready."""
    command = [MIROIR, "playground", "--nodes", "3", "--replication", "2", "--listen", listen, "--data", data]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = None
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(ADDRESS):
            url = line.removeprefix(ADDRESS).split()[0].rstrip(".")
        if line.startswith(READY):
            # Shows later output as it appears.
            threading.Thread(target=shutil.copyfileobj, args=(process.stdout, sys.stdout), daemon=True).start()
            return process, Cluster(url)
    raise Wrong(f"the playground ended with status {process.wait()}")


def load(cluster):
    headline(f"Loading {DOCUMENTS:,} documents")
    cluster.finish(cluster.ask("POST", "/indexes", {"uid": "places", "primaryKey": "id"}))
    cluster.finish(cluster.ask("PATCH", "/indexes/places/settings", {
        "searchableAttributes": ["name", "description", "kind", "city"],
        "filterableAttributes": ["kind", "city", "features", "price", "rating", "_geo"],
        "sortableAttributes": ["price", "rating", "opened", "_geo"],
    }))
    documents = list(places(DOCUMENTS))
    begun = time.monotonic()
    for at in range(0, DOCUMENTS, BATCH):
        cluster.finish(cluster.ask("POST", "/indexes/places/documents", documents[at:at + BATCH]))
        done = at + BATCH
        bar = "#" * (40 * done // DOCUMENTS)
        end = "\r" if sys.stdout.isatty() and done < DOCUMENTS else "\n"
        print(f"  [{bar:<40}] {done:,}", end=end, flush=True)
    say(f"  written to two nodes each, searchable after {time.monotonic() - begun:.1f} s")
    total = cluster.ask("GET", "/indexes/places/stats")["numberOfDocuments"]
    if total != DOCUMENTS:
        raise Wrong(f"the cluster counts {total} documents, not {DOCUMENTS}")


QUERIES = [
    ("a word with a typo, highlighted", {
        "q": "documentries", "limit": 3, "attributesToHighlight": ["description"],
        "attributesToRetrieve": ["name", "city"], "attributesToCrop": ["description"], "cropLength": 10}),
    ("a filter, a sort and facets", {
        "q": "bookshop", "filter": "rating > 4 AND price < 40", "sort": ["price:asc"], "facets": ["city", "price"],
        "limit": 3, "attributesToRetrieve": ["name", "city", "price", "rating"]}),
    ("the places nearest to a point in Kyoto", {
        "q": "", "filter": "_geoRadius(35.01, 135.77, 20000)", "sort": ["_geoPoint(35.01, 135.77):asc"],
        "limit": 3, "attributesToRetrieve": ["name", "kind"]}),
    ("page 7 of a phrase", {
        "q": '"old-fashioned"', "page": 7, "hitsPerPage": 3, "attributesToRetrieve": ["name", "city"]}),
]


def search(cluster):
    """Runs every query, shows the answers, and returns what must not change when a node dies."""
    seen = []
    for title, query in QUERIES:
        answer = cluster.search(**query)
        total = answer.get("totalHits", answer.get("estimatedTotalHits"))
        say(f"  {title}: {total} hits, {answer['milliseconds']:.1f} ms")
        for hit in answer["hits"]:
            shown = {name: value for name, value in hit.items() if name not in ("_formatted", "_geo")}
            formatted = hit.get("_formatted", {}).get("description")
            say(f"    {json.dumps(shown, ensure_ascii=False)}" + (f"  {formatted}" if formatted else ""))
        if "facetDistribution" in answer:
            say(f"    by city: {json.dumps(answer['facetDistribution']['city'])}")
        if not answer["hits"]:
            raise Wrong(f"no hit for {title}")
        if "_miroir_shard" in json.dumps(answer):
            raise Wrong(f"the shard tag shows in {title}")
        seen.append((total, answer.get("facetDistribution"), answer.get("facetStats")))
    return seen


def playground(action, name, data):
    subprocess.run([MIROIR, "playground", action, name, "--data", data], check=True, stdout=subprocess.DEVNULL)


def survive(cluster, data, before):
    headline("Killing the node meili-1 (SIGKILL), and searching again at once")
    playground("kill", "meili-1", data)
    if search(cluster) != before:
        raise Wrong("the answers changed when a node died")
    say("  every total, facet and statistic is the same as before.")
    headline("Writing while it is dead, then starting it again")
    new = {"id": DOCUMENTS, "name": "Zelda's lighthouse", "description": "Written while a node was dead.", "kind": "museum"}
    cluster.finish(cluster.ask("POST", "/indexes/places/documents", [new]))
    found = cluster.search(q="lighthouse")["hits"]
    if [hit["id"] for hit in found] != [DOCUMENTS]:
        raise Wrong(f"the new document is not found: {found}")
    say("  the new document is found.")
    playground("start", "meili-1", data)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        shown = subprocess.run([MIROIR, "status", "--json", "--data", data], capture_output=True, check=True, text=True)
        nodes = json.loads(shown.stdout)["nodes"]
        if all(node["up"] for node in nodes) and sum(node["stale"] for node in nodes) == 0:
            say("  meili-1 is back, and its replicas are repaired.")
            return
        time.sleep(0.2)
    raise Wrong("the node that came back is not repaired")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the last step")
    arguments = parser.parse_args()
    listen = os.environ.get("LISTEN") or f"127.0.0.1:{0 if arguments.once else 7700}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="miroir-demo-") as data:
        process = None
        try:
            headline("Starting three nodes, a control plane and Envoy")
            process, cluster = start(listen, data)
            load(cluster)
            headline("Searching through Envoy")
            before = search(cluster)
            survive(cluster, data, before)
            if not arguments.once:
                headline(f"It stays up at {cluster.url}: try it, kill other nodes. Ctrl-C ends it.")
                process.wait()
            return 0
        except Wrong as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0
        finally:
            if process is not None:
                process.terminate()
                process.wait()


sys.exit(main())
