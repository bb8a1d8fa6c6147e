import { renderReference } from "@p2p-mirror/shared/config";
import { ENV_PREFIX, MIRROR_SCHEMA } from "./schema.ts";

/** Part of the page, and of its test: what is shown must load. */
export const EXAMPLE_FILE = `# yaml-language-server: $schema=./configuration.schema.json
data_dir: /var/lib/p2p-mirror
cache_size: 50GiB
cache_min_free: 20%
cluster_secret_file:
  - /etc/p2p-mirror/cluster-secret
bootstrap:
  - p2p-mirror.kube-system.svc.cluster.local:24222
registries:
  docker.io:
    size: 20GiB
  registry.example:5000:
    url: http://10.0.0.5:5000
    ttl: 7d
  harbor.example:
    url: https://harbor.example/v2/proxy
    override_path: true
    headers:
      x-team: platform
  scratch.example:
    off: true
`;

/** docs/configuration.md, whole. It says nothing that the schema does not. */
export function renderConfigurationPage(): string {
  return `<!-- Made by "npm run docs" from packages/p2p-mirror/src/config/schema.ts: change it there. -->

# Configuration

Every setting of \`p2p-mirror serve\` is a flag, an environment variable and a key of the config file, except for maps, which are in the file only. A flag counts before a variable, a variable before the file, the file before the default. A list is taken from one place as a whole, never put together.

- **File**: YAML 1.2, named by \`--config FILE\` or \`${ENV_PREFIX}CONFIG\`. A key that does not exist is an error. An editor that knows YAML schemas can check it against \`docs/configuration.schema.json\`.
- **Variables**: an empty one is not set. Lists have commas between their items; switches are \`true\` or \`false\`.
- **Flags**: repeatable ones are given once for each item of the list.

What is wrong is one line on standard error, with the field and where it was set, the value, and the fix. The exit code is then 2, and nothing was opened, bound or written.

| Type | Written as |
| --- | --- |
| size | \`20GiB\`, \`512Mi\` (powers of 1024), \`10GB\` (powers of 1000), or a number of bytes |
| share | \`10%\` of the file system |
| duration | \`250ms\`, \`30s\`, \`5m\`, \`1h30m\`, \`7d\` |
| address | \`HOST:PORT\`, \`[IPv6]:PORT\`; to listen also \`:PORT\` (the default host) and port 0 (a free one) |
| path | relative ones start at the working directory |

The commands \`ls\`, \`status\` and \`pull\` find the mirror of this node by the same settings (\`admin_listen\`, \`registry_listen\`), or by \`--admin URL\` (\`${ENV_PREFIX}ADMIN\`) and \`--registry URL\` (\`${ENV_PREFIX}REGISTRY\`).

## Example

\`\`\`yaml
${EXAMPLE_FILE}\`\`\`

## Settings

${renderReference(MIRROR_SCHEMA, ENV_PREFIX)}
`;
}

/** docs/configuration.schema.json, whole: the schema itself, for editors. */
export function renderEditorSchema(): string {
  const schema = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "p2p-mirror serve --config",
    ...MIRROR_SCHEMA,
  };
  return `${JSON.stringify(schema, undefined, 2)}\n`;
}
