export { ReplicError } from './base/errors.js'
export { METRICS_CONTENT_TYPE } from './metrics.js'
export { patchesTable } from './patches-table.js'
export { Replica } from './replica.js'
