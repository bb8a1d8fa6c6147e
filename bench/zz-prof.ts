import { blobsOf, makeImage } from "../test/rig/images.ts";
import { drain } from "./lib/programs.ts";
import { advertised, blobUrl, connected, MIB, Scene } from "./lib/scene.ts";
await using scene = await Scene.open();
const image = makeImage({ seed: "relay", layers: [512 * MIB] });
await scene.push(image, "a/b");
const layer = blobsOf(image).reduce((a, b) => (a.bytes.length > b.bytes.length ? a : b));
const { digest } = layer.descriptor;
const holder = await scene.mirror("holder");
await drain(blobUrl(holder, "a/b", digest));
await advertised(holder, 1);
const asker = await scene.mirror("asker", {
  bootstrap: [holder.p2pAddress],
  nodeFlags: (process.env.NF ?? "--max-semi-space-size=1").split(" "),
});
await connected(asker);
const b = (await asker.metrics()).sum("process_cpu_seconds_total");
const d = await drain(blobUrl(asker, "a/b", digest));
console.log(d, "cpu", (await asker.metrics()).sum("process_cpu_seconds_total") - b);
await asker.stop();
