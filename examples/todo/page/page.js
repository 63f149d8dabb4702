// The page shows what its node has, and sends what its user does. While the node is away, that is kept and sent later.

const RETRY_MS = 500
const waiting = new Map() // n -> what the node has not stored yet
let socket
let count = 0

const element = (id) => document.getElementById(id)
// Not randomUUID(), which is there over https and on localhost only.
const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('')

function send(change) {
  const message = JSON.stringify({ n: ++count, ...change })
  waiting.set(count, message)
  if (socket?.readyState === WebSocket.OPEN) socket.send(message)
}

function connect() {
  socket = new WebSocket(`${location.origin.replace('http', 'ws')}/live`)
  socket.onopen = () => {
    for (const message of waiting.values()) socket.send(message)
  }
  socket.onmessage = ({ data }) => {
    const { stored, error, todos, peerId } = JSON.parse(data)
    if (stored) waiting.delete(stored)
    if (error) element('state').textContent = error
    if (todos) show(todos, peerId)
  }
  socket.onclose = () => {
    element('state').textContent = 'not connected'
    setTimeout(connect, RETRY_MS)
  }
}

function show(todos, peerId) {
  element('state').textContent = `connected to peer ${peerId}`
  const rows = new Map([...element('todos').children].map((row) => [row.dataset.id, row]))
  const shown = todos.map((todo) => {
    const row = rows.get(todo.id) ?? makeRow(todo.id)
    const [done, title] = row.querySelectorAll('input')
    row.classList.toggle('done', todo.done === 1)
    done.checked = todo.done === 1
    if (document.activeElement !== title) title.value = todo.title // not what somebody is writing
    return row
  })
  // What stays is not touched: somebody may be writing there.
  for (const row of rows.values()) if (!shown.includes(row)) row.remove()
  let next = element('todos').firstChild
  for (const row of shown) {
    if (row === next) next = next.nextSibling
    else element('todos').insertBefore(row, next)
  }
}

function makeRow(id) {
  const row = document.createElement('li')
  row.dataset.id = id
  row.innerHTML = '<input type="checkbox"><input class="title"><button type="button">×</button>'
  const [done, title] = row.querySelectorAll('input')
  done.onchange = () => send({ upsert: { id, done: done.checked } })
  title.onchange = () => send({ upsert: { id, title: title.value } })
  row.querySelector('button').onclick = () => send({ remove: id })
  return row
}

element('form').onsubmit = (event) => {
  event.preventDefault()
  const title = element('new').value.trim()
  if (title) send({ upsert: { id: newId(), title, done: false, createdAt: Date.now() } })
  element('new').value = ''
}

connect()
