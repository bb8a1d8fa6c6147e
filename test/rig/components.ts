export { COMPONENT_NAMES, component, type Component, type ComponentName } from "./components/index.ts";
