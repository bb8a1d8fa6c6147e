import { digestOf, MEDIA_TYPES } from "@p2p-mirror/shared";
import t from "tap";
import { setup, type Setup } from "./rig.ts";

interface Index {
  readonly manifests: { readonly digest: string; readonly artifactType?: string }[];
}
const SIGNATURE = "application/vnd.test.signature";
const SBOM = "application/vnd.test.sbom";

const parse = (body: Uint8Array): unknown => JSON.parse(Buffer.from(body).toString());
const isIndex = (value: unknown): value is Index =>
  typeof value === "object" && value !== null && "manifests" in value && Array.isArray(value.manifests);
function typesOf(body: Uint8Array): string[] {
  const index = parse(body);
  if (!isIndex(index)) throw new Error("no index");
  return index.manifests.map((one) => one.artifactType ?? "").toSorted();
}

function artifact(type: string, subject: string, size: number): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      artifactType: type,
      config: {
        mediaType: "application/vnd.oci.empty.v1+json",
        digest: digestOf(Buffer.from("{}")),
        size: 2,
      },
      layers: [],
      subject: { mediaType: MEDIA_TYPES.ociManifest, digest: subject, size },
    }),
  );
}

function attach({ registry, image }: Setup): void {
  for (const type of [SIGNATURE, SBOM]) {
    registry.content.putManifest("team/app", MEDIA_TYPES.ociManifest, artifact(type, image.digest, 100));
  }
}

void t.test("referrers by the API, all or of one type", async (t) => {
  const rig = await setup(t);
  attach(rig);
  const all = await rig.upstream.referrers(rig.repository, rig.image.digest, {});
  t.same(typesOf(all.body), [SBOM, SIGNATURE]);
  t.same([all.contentType, all.filtersApplied], [MEDIA_TYPES.ociIndex, undefined]);
  const one = await rig.upstream.referrers(rig.repository, rig.image.digest, { artifactType: SBOM });
  t.same(typesOf(one.body), [SBOM]);
  t.equal(one.filtersApplied, "artifactType");
});

void t.test("a registry without the API: the tag of the schema, filtered here", async (t) => {
  const rig = await setup(t, { registry: { referrersApi: false } });
  const { registry, image, upstream, repository } = rig;
  const none = await upstream.referrers(repository, image.digest, {});
  t.same(parse(none.body), { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: [] });

  const manifests = [SIGNATURE, SBOM].map((artifactType) => {
    const bytes = artifact(artifactType, image.digest, 100);
    const digest = registry.content.putManifest("team/app", MEDIA_TYPES.ociManifest, bytes);
    return { mediaType: MEDIA_TYPES.ociManifest, digest, size: bytes.length, artifactType };
  });
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }));
  const digest = registry.content.putManifest("team/app", MEDIA_TYPES.ociIndex, index);
  registry.content.tag("team/app", image.digest.replace(":", "-"), digest);

  const all = await upstream.referrers(repository, image.digest, {});
  t.same(typesOf(all.body), [SBOM, SIGNATURE]);
  const one = await upstream.referrers(repository, image.digest, { artifactType: SBOM });
  t.same(typesOf(one.body), [SBOM]);
  t.equal(one.filtersApplied, "artifactType");
});

void t.test("an answer that is no index is no answer of the API", async (t) => {
  const rig = await setup(t);
  for (const fault of [{ status: 200, body: "<html>welcome</html>" }, { status: 400 }, { status: 405 }]) {
    rig.registry.faults.set([{ match: { kind: "referrers" }, ...fault }]);
    const list = await rig.upstream.referrers(rig.repository, rig.image.digest, {});
    t.same(typesOf(list.body), [], JSON.stringify(fault));
  }
  rig.registry.faults.set([{ match: { kind: "referrers" }, status: 403 }]);
  await t.rejects(rig.upstream.referrers(rig.repository, rig.image.digest, {}), { code: "DENIED" });
});

void t.test("paging by a token of the registry's own: all pages in one", async (t) => {
  const { registry, upstream, repository } = await setup(t);
  const page = (tags: string[], next: string | undefined, path: RegExp): void => {
    registry.faults.add({
      match: { kind: "tags", path },
      status: 200,
      body: JSON.stringify({ name: "team/app", tags }),
      ...(next === undefined ? {} : { headers: { link: `<${next}>; rel="next"` } }),
    });
  };
  page(["a", "b"], "/v2/team/app/tags/list?n=2&next_page=xyz%3D", /[?&]n=2$/);
  page(["c"], "/v2/team/app/tags/list?n=2&next_page=2", /next_page=xyz%3D$/);
  page(["d"], undefined, /next_page=2$/);
  const list = await upstream.tags(repository, { n: 2 });
  t.same(parse(list.body), { name: "team/app", tags: ["a", "b", "c", "d"] });
  t.equal(list.next, undefined);
});

void t.test("pages without end are given up", async (t) => {
  const { registry, upstream, repository } = await setup(t);
  registry.faults.add({
    match: { kind: "tags" },
    status: 200,
    body: '{"tags":["a"]}',
    headers: { link: '</v2/team/app/tags/list?token=again>; rel="next"' },
  });
  await t.rejects(upstream.tags(repository, {}), { code: "STATUS" });
  t.equal(registry.requests.length, 100);
});

void t.test("a link with the namespace, of another host, or that is none", async (t) => {
  const { registry, upstream, repository } = await setup(t);
  const links = [
    ['<https://elsewhere.test/v2/team/app/tags/list?ns=registry.test&last=a&n=5>; rel="next"', "?n=5&last=a"],
    ['<tags/list?last=a>; title="x"; rel=next', "?last=a"],
    ['</v2/team/app/tags/list?last=a>; rel="prev"', undefined],
    ["nonsense", undefined],
    [`<${"x".repeat(5000)}>; rel="next"`, undefined],
  ] as const;
  for (const [link, next] of links) {
    registry.faults.set([{ match: { kind: "tags" }, headers: { link } }]);
    const list = await upstream.tags(repository, {});
    t.equal(list.next, next === undefined ? undefined : `/v2/team/app/tags/list${next}`, link.slice(0, 60));
  }
});
