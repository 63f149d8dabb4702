// What the core knows of a link, as status() shows it.

import { printable } from '../base/errors.js'

/** `cannotStore`: why nothing that comes in can be stored at present; null if it can. */
export function figuresOf({ link, peer, state, schema, held, ...figures }, cannotStore) {
  return { ...figures, held: whyHeld(held, figures.behind, cannotStore), schema: schemaOf(schema) }
}

// What is lacking may be held, or may have come and found no room on the disk.
function whyHeld(held, behind, cannotStore) {
  if (held) return printable(held)
  return behind > 0 ? cannotStore : null
}

/** A line each: a table's name, a tab, and what of it is not the same here. */
const schemaOf = (lines) =>
  Object.fromEntries(
    lines
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        const [table, differs] = line.split('\t')
        return [printable(table), differs ? printable(differs) : null]
      }),
  )
