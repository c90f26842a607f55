/* Finds a pasted message among the terms of messages.html, where "..." stands for values, and shows
   the changelog, which mentions everything, last. */
const searchPages = Search._performSearch;
Search._performSearch = (query, ...others) => {
  const split = (text) => new Set(splitQuery(text.toLowerCase()));
  const { docnames, filenames, titles, indexentries } = Search._index;
  const asked = split(query);
  const found = new Map(); // by place, since an entry is split at semicolons
  for (const [entry, places] of Object.entries(indexentries)) {
    const words = [...split(entry)];
    const shared = words.filter((word) => asked.has(word)).length;
    const whole = shared > 2 && shared > 0.9 * words.length;
    const part = shared > 4 && shared > 0.8 * asked.size;
    for (const [file, id] of whole || part ? places : []) {
      const place = `${file}#${id}`;
      const result = found.get(place) ?? [
        docnames[file], titles[file], `#${id}`, "", 0, filenames[file], SearchResultKind.index,
      ];
      if (entry.length > result[3].length) result[3] = entry;
      result[4] += shared;
      found.set(place, result);
    }
  }
  const best = [...found.values()].sort((a, b) => a[4] - b[4]).slice(-3); // the last is shown first
  const pages = searchPages(query, ...others)
    .filter((page) => !best.some((one) => one[0] === page[0] && one[2] === page[2]))
    .sort((a, b) => (b[0] === "changelog") - (a[0] === "changelog"));
  if (best.length) localStorage.removeItem("sphinx_highlight_terms"); // each word, all over the page
  return [...pages, ...best];
};
