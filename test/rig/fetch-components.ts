/**
 * Brings every component before the tests start, so that a download or a build of minutes does not run into the time
 * limit of a test. What cannot be had is not an error here: the tests that need it say so.
 */
import { RECIPES } from "./components/catalog.ts";
import { COMPONENT_NAMES, component } from "./components.ts";

const say = (line: string): void => console.error(line);
const got: string[] = [];
for (const name of COMPONENT_NAMES) {
  if (RECIPES[name].onDemand === true) continue;
  try {
    const { version } = await component(name, { say });
    got.push(version === "" ? name : `${name} (${version})`);
  } catch (error) {
    say(error instanceof Error ? error.message : String(error));
  }
}
say(`components: ${got.join(", ") || "none"}`);
