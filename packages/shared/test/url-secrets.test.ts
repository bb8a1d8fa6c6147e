import t from "tap";
import { hideUrlSecrets } from "@p2p-mirror/shared";

await t.test("a URL is shown without what makes it a credential, wherever it stands", async (t) => {
  for (const [text, shown] of [
    ["https://u:p@s.test/b/x?X-Amz-Signature=secret#f", "https://…@s.test/b/x?…"],
    ["https://s.test/b/x", "https://s.test/b/x"],
    ["https://s.test/b/x#token=secret", "https://s.test/b/x#…"],
    ["x.test=http://u:secret@h:5000", "x.test=http://…@h:5000"],
    ["http://u:se/cret@h", "http://…@h"],
    ["socks5://u:secret@h:1080 and HTTPS://v:secret@i", "socks5://…@h:1080 and HTTPS://…@i"],
    ['cannot get "https://u:secret@s.test/x?sig=secret", sorry', 'cannot get "https://…@s.test/x?…", sorry'],
    ["team/app@sha256:ab", "team/app@sha256:ab"],
    ["", ""],
  ] as const) {
    t.equal(hideUrlSecrets(text), shown, text);
  }
});
