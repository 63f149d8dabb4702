// The API reference, docs/api.md, from the declarations in types/: `npm run api` writes it, test/41 finds one that
// is not up to date. Only the syntax is read: what is exported, its signature, and the comment above it.

import { readFileSync, writeFileSync } from 'node:fs'
import { argv } from 'node:process'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const ROOT = new URL('..', import.meta.url)
const REFERENCE = new URL('docs/api.md', ROOT)
const HEAD = `# API reference

Made from the comments of [types/](../types) by \`npm run api\`; do not edit it. Begin with
[getting started](getting-started.md); every error's causes and remedies are in [errors](errors.md).
`

/**
 * What each entry of package.json's "exports" declares: [{ entry, name, declarations }], in the order of the file,
 * with [{ name, kind, isValue, doc, text, members }]. `members` have { name, doc, text, type, isStatic }, one for
 * all overloads; `isValue`: it is there when the program runs, too.
 */
export function readTypes() {
  const { exports } = JSON.parse(readFileSync(new URL('package.json', ROOT), 'utf8'))
  return Object.entries(exports)
    .filter(([, { types }]) => types)
    .map(([entry, { types }]) => ({
      entry,
      name: entry.replace(/^\./, 'replic-sqlite'),
      declarations: readFile(new URL(types, ROOT)),
    }))
}

function readFile(url) {
  const path = fileURLToPath(url)
  const source = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true)
  const isExported = (node) =>
    node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)
  return merge(source.statements.filter(isExported).map(declaration))
}

function declaration(node) {
  const inner = ts.isVariableStatement(node) ? node.declarationList.declarations[0] : node
  return {
    name: inner.name.text,
    kind: KINDS.get(node.kind),
    isValue: node.kind !== ts.SyntaxKind.InterfaceDeclaration && !ts.isTypeAliasDeclaration(node),
    doc: docOf(node),
    text: clean(node.getText()),
    members: merge((node.members ?? []).filter(isPublic).map(member)),
    heritage: node.heritageClauses?.[0].types[0].getText(),
  }
}

const KINDS = new Map([
  [ts.SyntaxKind.ClassDeclaration, 'class'],
  [ts.SyntaxKind.InterfaceDeclaration, 'interface'],
  [ts.SyntaxKind.TypeAliasDeclaration, 'type'],
  [ts.SyntaxKind.FunctionDeclaration, 'function'],
  [ts.SyntaxKind.VariableStatement, 'constant'],
])

const isPublic = (node) =>
  !node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.PrivateKeyword)

const member = (node) => ({
  name: node.name?.getText() ?? (ts.isConstructorDeclaration(node) ? 'constructor' : '()'),
  doc: docOf(node),
  text: clean(node.getText()),
  type: node.type && ts.isPropertySignature(node) ? typeOf(node) : clean(node.getText()),
  isStatic: node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.StaticKeyword) ?? false,
})

// Of overloads, and of a class and an interface with one name: all texts, the comment of the one that has it.
function merge(all) {
  const byName = new Map()
  for (const one of all) {
    const first = byName.get(one.name)
    if (!first) byName.set(one.name, one)
    else {
      first.text += `\n${one.text}`
      first.doc ||= one.doc
      first.members?.push(...one.members)
      first.kind = one.kind
      first.isValue ||= one.isValue
    }
  }
  return [...byName.values()]
}

const docOf = (node) =>
  (ts.getTextOfJSDocComment(node.jsDoc?.at(-1)?.comment) ?? '').replace(/\s+/g, ' ').trim()

// Without the remarks to linters, and on the left.
const clean = (text) =>
  text.replace(/^ *\/\/ biome-ignore.*\n/gm, '').replace(/^export (declare )?/gm, '')

// What may be left out may be undefined, which need not be told; what is returned need be.
const typeOf = ({ type, questionToken }) =>
  clean(questionToken ? type.getText().replace(/ \| undefined$/, '') : type.getText())

// Functions apart from types, whose names may differ in case only.
const heading = (name, kind, entry) =>
  `${kind === 'function' ? 'function ' : ''}${name}${entry === '.' ? '' : ` (${entry.slice(2)})`}`
const slug = (heading) =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
const cell = (text) => text.replace(/\s+/g, ' ').replaceAll('|', '\\|')
const code = (text) => `\`\`\`ts\n${text}\n\`\`\`\n`
const paragraph = (doc) => (doc === '' ? '' : `${fill(doc)}\n\n`)

function fill(text) {
  let width = 0
  const words = text.split(' ').map((word) => {
    const isFull = width + word.length > 110
    width = isFull ? word.length : width + word.length + 1
    return isFull ? `\n${word}` : ` ${word}`
  })
  return words.join('').trim()
}

/** The whole of docs/api.md. */
export function reference() {
  const modules = readTypes()
  const contents = modules.map(({ entry, name, declarations }) => {
    const links = declarations.map(
      (one) => `[${one.name}](#${slug(heading(one.name, one.kind, entry))})`,
    )
    return `- **${name}**: ${links.join(', ')}\n`
  })
  return `${HEAD}\n${contents.join('')}\n${modules.map(moduleText).join('\n')}`
}

const moduleText = ({ entry, name, declarations }) =>
  `## ${name}\n\n${declarations.map((one) => declarationText(one, entry)).join('\n')}`

function declarationText({ name, kind, doc, text, members, heritage }, entry) {
  const more = heritage ? `All of \`${heritage}\`, and:\n\n` : ''
  const title = `### ${heading(name, kind, entry)}\n\n${paragraph(doc)}`
  if (kind === 'class') return title + more + members.map((one) => methodText(one, name)).join('\n')
  if (kind !== 'interface' || members.length === 0) return title + code(text)
  const rows = members.map(
    (one) => `| \`${one.name}\` | \`${cell(one.type)}\` | ${cell(one.doc)} |`,
  )
  return `${title}${more}| member | type | |\n| --- | --- | --- |\n${rows.join('\n')}\n`
}

function methodText({ name, doc, text, isStatic }, ofClass) {
  const of = isStatic ? ofClass : { Replica: 'db', ReplicError: 'error' }[ofClass]
  const title =
    name.startsWith('[') || name === 'constructor' ? `${ofClass} ${name}` : `${of}.${name}`
  const lines = text.replace(/^ {2}/gm, '')
  return `#### ${title}\n\n${paragraph(doc)}${code(lines)}`
}

if (argv[1] === fileURLToPath(import.meta.url)) writeFileSync(REFERENCE, reference())
