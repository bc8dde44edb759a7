// As probe.py, for the peers that are Node.js packages: node probe.cjs NODE_MODULES PEER MESSAGES
'use strict'

const fs = require('node:fs')
const path = require('node:path')

const [modules, peer, messages] = [process.argv[2], process.argv[3], Number(process.argv[4])]
const load = (name) => require(path.join(modules, name)) // whatever the package means to export

const pg = load('pg')
const { prepareValue } = load('pg/lib/utils.js')
const content = 'x'.repeat(86) // in JSON, with its key, 100 bytes

const recorded = []
const query = pg.Client.prototype.query
pg.Client.prototype.query = function (config, values, ...rest) {
  const isObject = typeof config === 'object'
  const text = isObject ? config.text : config
  if (typeof text === 'string') {
    recorded.push({ text, values: (isObject ? config.values : values) ?? [] })
  }
  return query.call(this, config, values, ...rest)
}

// A statement with its values in it as pg sends them, as texts without a type, and variables for the ids.
function literal ({ text, values }, ids = null) {
  return text.replace(/\$(\d+)/g, (_, n) => {
    const value = values[n - 1]
    if (ids !== null && JSON.stringify(value) === JSON.stringify(ids)) return Array.isArray(value) ? ':ids' : ':id'
    const prepared = prepareValue(value)
    return prepared === null ? 'NULL' : `'${String(prepared).replaceAll("'", "''")}'`
  })
}

const last = () => recorded[recorded.length - 1]
const many = (value) => Array(messages).fill(value)

async function graphile () {
  const dist = (name) => load(`graphile-worker/dist/${name}.js`)
  const pool = new pg.Pool({ max: 1 })
  const utils = await load('graphile-worker').makeWorkerUtils({ pgPool: pool })
  await utils.migrate()
  const options = dist('lib').processSharedOptions({ pgPool: pool })
  const withPgClient = async (callback) => {
    const client = await pool.connect()
    try {
      return await callback(client)
    } finally {
      client.release()
    }
  }
  withPgClient.withRetries = withPgClient
  const tasks = { bench: () => {} }
  const take = (count) => dist('sql/getJobs').batchGetJobs(options, withPgClient, tasks, 'pool-1', null, count)
  const complete = (jobs) => dist('sql/completeJobs').batchCompleteJobs(options, withPgClient, 'pool-1', jobs)
  const said = {}

  await utils.addJob('bench', { content })
  said.create = literal(last())
  let jobs = await take(1)
  said.dequeue = literal(last())
  await complete(jobs)
  said.delete = literal(last(), jobs[0].id)

  await utils.addJobs(many({ identifier: 'bench', payload: { content } }))
  said.create_many = literal(last())
  jobs = await take(messages)
  said.dequeue_many = literal(last())
  await complete(jobs)
  said.delete_many = literal(last(), jobs.map((job) => job.id))

  await utils.release()
  await pool.end()
  return said
}

async function boss () {
  // Newer ones are modules, which older versions of Node.js cannot require.
  const { main } = load('pg-boss/package.json')
  const exported = await import(path.join(modules, 'pg-boss', main))
  const PgBoss = exported.PgBoss ?? exported.default
  const boss = new PgBoss({
    host: process.env.PGHOST,
    user: process.env.PGUSER,
    database: process.env.PGDATABASE,
    supervise: false,
    schedule: false
  })
  await boss.start()
  await boss.createQueue('bench')
  const said = {}

  await boss.send('bench', { content })
  said.create = literal(last())
  let jobs = await boss.fetch('bench', { batchSize: 1 })
  said.dequeue = literal(last())
  await boss.complete('bench', jobs[0].id)
  said.delete = literal(last(), [jobs[0].id])

  await boss.insert('bench', many({ data: { content } }))
  said.create_many = literal(last())
  jobs = await boss.fetch('bench', { batchSize: messages })
  said.dequeue_many = literal(last())
  await boss.complete('bench', jobs.map((job) => job.id))
  said.delete_many = literal(last(), jobs.map((job) => job.id))

  await boss.stop({ graceful: false })
  return said
}

const peers = { 'graphile-worker': graphile, 'pg-boss': boss }
peers[peer]().then((statements) => {
  const { version } = load(`${peer}/package.json`)
  fs.writeFileSync('statements.json', JSON.stringify({ version, statements }))
  process.exit(0)
}, (error) => {
  console.error(error)
  process.exit(1)
})
