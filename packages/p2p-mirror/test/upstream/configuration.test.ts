import t from "tap";
import { endpointOf, objectUrl, type RegistryConfig } from "../../src/upstream/registry-config.ts";
import { setup } from "./rig.ts";

const urlOf = (registry: string, config: RegistryConfig = {}): string =>
  objectUrl(endpointOf(registry, config), { registry, repository: "a/b" }, "manifests/v1").href;

void t.test("where a registry is asked: by its name, or as hosts.toml has it", async (t) => {
  t.equal(urlOf("docker.io"), "https://registry-1.docker.io/v2/a/b/manifests/v1");
  t.equal(urlOf("ghcr.io"), "https://ghcr.io/v2/a/b/manifests/v1");
  t.equal(urlOf("host:5000"), "https://host:5000/v2/a/b/manifests/v1");
  t.equal(urlOf("host:5000", { url: "http://host:5000" }), "http://host:5000/v2/a/b/manifests/v1");
  t.equal(
    urlOf("docker.io", { url: "https://registry-1.docker.io" }),
    "https://registry-1.docker.io/v2/a/b/manifests/v1",
  );
  t.equal(
    urlOf("docker.io", { url: "https://harbor.test/proxy/" }),
    "https://harbor.test/proxy/v2/a/b/manifests/v1?ns=docker.io",
  );
  t.equal(
    urlOf("docker.io", { url: "https://harbor.test/v2" }),
    "https://harbor.test/v2/a/b/manifests/v1?ns=docker.io",
  );
  t.equal(
    urlOf("docker.io", { url: "https://harbor.test/v2/cache", overridePath: true }),
    "https://harbor.test/v2/cache/a/b/manifests/v1?ns=docker.io",
  );
});

void t.test("a registry below a path, and one whose path is used as it is", async (t) => {
  for (const [basePath, path, overridePath] of [
    ["/prefix/v2", "/prefix", false],
    ["/v2/cache", "/v2/cache", true],
  ] as const) {
    const { registry } = await setup(t, { registry: { basePath } });
    const { upstream, repository, image } = await setup(t, {
      config: { url: `${registry.url}${path}`, overridePath },
    });
    registry.push(image);
    t.equal((await upstream.resolve(repository, "v1")).digest, image.digest, basePath);
    t.match(registry.requests[0]?.path, `${basePath}/team/app/manifests/v1?ns=registry.test`);
  }
});
