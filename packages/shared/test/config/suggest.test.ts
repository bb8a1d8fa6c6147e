import t from "tap";
import { didYouMean, suggest } from "@p2p-mirror/shared/config";

const KNOWN = ["cache_size", "cache_min_free", "peer_listen", "p2p_listen", "access", "off"];

await t.test("a slip of the finger is understood", async (t) => {
  const cases: [string, string][] = [
    ["cache_sise", "cache_size"],
    ["cahce_size", "cache_size"],
    ["cacheSize", "cache_size"],
    ["cache-min-free", "cache_min_free"],
    ["CACHE_SIZE", "cache_size"],
    ["peer_lisen", "peer_listen"],
    ["acces", "access"],
  ];
  for (const [word, meant] of cases) t.equal(suggest(word, KNOWN), meant, word);
});

await t.test("a word far from all is not guessed at", async (t) => {
  for (const word of ["registry", "xyz", "", "completely_different_setting"])
    t.equal(suggest(word, KNOWN), undefined, word);
  t.equal(didYouMean("registry", KNOWN), "");
  t.equal(didYouMean("acces", KNOWN), 'did you mean "access"?');
  t.equal(suggest("x", []), undefined);
});

await t.test("a very long word costs no time", async (t) => {
  const started = performance.now();
  suggest("x".repeat(1_000_000), KNOWN);
  t.ok(performance.now() - started < 500);
});
