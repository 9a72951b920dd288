// Checks Istio's resources, a JSON array on standard input, against the schemas of Istio's own resource definitions.
import { readFileSync } from "node:fs";

const models = new URL("../.tools/istio/node_modules/@kubernetes-models/istio/", import.meta.url);
let failed = false;
for (const { source, document } of JSON.parse(readFileSync(0))) {
  const { apiVersion, kind, metadata } = document;
  try {
    const { [kind]: Model } = await import(new URL(`${apiVersion}/${kind}.js`, models));
    new Model(document).validate();
  } catch (error) {
    failed = true;
    console.error(`${source}: ${kind}/${metadata.name}: ${error.message}`);
  }
}
process.exit(failed ? 1 : 0);
