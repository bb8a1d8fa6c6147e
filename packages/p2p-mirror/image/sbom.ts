import { Enums, Models, Serialize, Spec, SPDX } from "@cyclonedx/cyclonedx-library";
import type { DebianPackage } from "./debian.ts";
import type { NpmPackage } from "./npm.ts";

export interface Parts {
  readonly name: string;
  readonly version: string;
  readonly licence: string;
  /** Of Node.js, without the v. */
  readonly node: string;
  readonly suite: string;
  readonly debian: readonly DebianPackage[];
  readonly npm: readonly NpmPackage[];
}

/** What the image is made of, in CycloneDX 1.6. Without a time or a serial number, so that it is the same each time. */
export function sbomOf(parts: Parts): string {
  const bom = new Models.Bom();
  bom.metadata.component = component(Enums.ComponentType.Container, {
    name: parts.name,
    version: parts.version,
    licence: parts.licence,
    purl: `pkg:oci/${parts.name}@v${parts.version}`,
  });
  bom.components.add(
    component(Enums.ComponentType.Application, {
      name: "node",
      version: parts.node,
      licence: "MIT",
      purl: `pkg:generic/node@${parts.node}`,
    }),
  );
  for (const { name, version } of parts.debian) {
    bom.components.add(
      component(Enums.ComponentType.Library, {
        name,
        version,
        purl: `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=amd64&distro=${parts.suite}`,
      }),
    );
  }
  for (const { name, version, licence, integrity } of parts.npm) {
    bom.components.add(
      component(Enums.ComponentType.Library, {
        name,
        version,
        licence,
        purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
        sha512: integrity?.startsWith("sha512-") === true ? integrity.slice("sha512-".length) : undefined,
      }),
    );
  }
  const format = new Serialize.JSON.Normalize.Factory(Spec.Spec1dot6);
  return new Serialize.JsonSerializer(format).serialize(bom, { sortLists: true, space: 1 });
}

interface Part {
  readonly name: string;
  readonly version: string;
  readonly purl: string;
  readonly licence?: string;
  /** Base64. */
  readonly sha512?: string | undefined;
}

function component(
  type: Enums.ComponentType,
  { name, version, purl, licence, sha512 }: Part,
): Models.Component {
  const one = new Models.Component(type, name, { version, purl, bomRef: purl });
  if (licence !== undefined && licence !== "") one.licenses.add(licenceOf(licence));
  if (sha512 !== undefined)
    one.hashes.set(Enums.HashAlgorithm["SHA-512"], Buffer.from(sha512, "base64").toString("hex"));
  return one;
}

/** By its SPDX identifier, an expression of such, or whatever it is called. */
function licenceOf(text: string): Models.License {
  if (SPDX.isSupportedSpdxId(text)) return new Models.SpdxLicense(text);
  return / (AND|OR|WITH) /.test(text) ? new Models.LicenseExpression(text) : new Models.NamedLicense(text);
}
