export { ReplicError } from './errors.js'
export { Replica } from './replica.js'
