/** Any scheme; the user part may have slashes that should have been escaped, so it goes to the last @ before a query. */
const URL_PARTS = /([a-z][a-z0-9+.-]*:\/\/)([^\s"'?#]*@)?([^\s"'?#]*)([?#][^\s"']*)?/gi;

/**
 * A text as it may be shown and logged: of each URL in it, user and password are left out, and query and fragment (presigned
 * links carry their credentials there), with `…` in their place.
 */
export const hideUrlSecrets = (text: string): string =>
  text.replaceAll(
    URL_PARTS,
    (_, scheme: string, login: string | undefined, place: string, query: string | undefined) =>
      `${scheme}${login === undefined ? "" : "…@"}${place}${query === undefined ? "" : `${query.slice(0, 1)}…`}`,
  );
