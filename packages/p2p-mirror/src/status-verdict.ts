import type { DoctorReport, Finding } from "./status.ts";

/** What keeps images from coming through the mirror; nothing: it is in force. */
export const brokenOf = ({ findings }: Pick<DoctorReport, "findings">): Finding[] =>
  findings.filter(({ severity }) => severity === "broken");
