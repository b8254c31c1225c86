// Counts and reads with the `fetch` of Node 18 and later. The server is the first argument, http://localhost:7070 by default.

const api = `${process.argv[2] ?? "http://localhost:7070"}/api/v1`;

async function ask(method, path, body) {
  const answer = await fetch(api + path, {
    method,
    body: body && JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
    signal: AbortSignal.timeout(40_000),
  });
  const json = await answer.json();
  if (!answer.ok) throw new Error(`${json.code}: ${json.detail}`);
  return json;
}

// One event, now.
await ask("POST", `/counters/shop/${encodeURIComponent("GET /cart")}`);

// Many in one request.
const { accepted, guarantee } = await ask("POST", "/increments", [
  { collection: "shop", metric: "order", labels: { country: "DE" } },
  { collection: "shop", metric: "bytes", n: Number.MAX_SAFE_INTEGER },
  { collection: "shop", metric: "bytes", n: 2 },
]);
console.log(`${accepted} accepted, safe in the ${guarantee}`);

// JavaScript rounds numbers beyond 2^53, so the values come as texts.
const { counters } = await ask("GET", "/counters/shop?strings=true");
for (const [metric, value] of Object.entries(counters)) {
  console.log(metric, BigInt(value));
}
