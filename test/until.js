/** Resolves once `condition()` holds: for what no event tells of. Looks after each turn of the event loop. */
export async function until(condition) {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve))
}
