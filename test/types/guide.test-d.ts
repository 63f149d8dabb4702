// As docs/getting-started.md has it; test/42 compares.

import { Replica, ReplicError } from 'replic-sqlite'

interface Todo {
  id: string
  title: string | null
  done: number | null
}

export async function open(path: string): Promise<Replica | undefined> {
  try {
    return await Replica.open(path)
  } catch (error) {
    if (error instanceof ReplicError && error.code === 'REPLIC_LOCKED') return undefined
    throw error
  }
}

export async function titles(db: Replica): Promise<(string | null)[]> {
  const todos = await db.all<Todo>('SELECT id, title, done FROM todo')
  return todos.map(({ title }) => title)
}
