/** A cluster in words. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { clock, code, facts, nodes, progress, remaining, state, tally, visible } from '../lib/words.js';

const cluster = (changes = {}) => ({
  id: '0123456789abcdef',
  spec: { site: 'octopus', name: 'fit', resources: { nodes: 2, walltime: 3600 } },
  state: 'ready',
  detail: '',
  jobs: [{ job_id: '7' }],
  walltime_left: 1800,
  counts: { workers: 1, cores: 8, tasks: {} },
  error: null,
  notices: {},
  changed: 100,
  ...changes
});

test('a clock', () => {
  assert.equal(clock(0), '0:00');
  assert.equal(clock(-3), '0:00');
  assert.equal(clock(74.9), '1:14');
  assert.equal(clock(3723), '1:02:03');
});

test('what is left of a walltime', () => {
  assert.equal(remaining(0), '0 min');
  assert.equal(remaining(61), '2 min');
  assert.equal(remaining(119 * 60), '119 min');
  assert.equal(remaining(3 * 3600 + 20 * 60), '3 h 20 min');
  assert.equal(remaining(47 * 3600 + 59 * 60), '47 h 59 min');
  assert.equal(remaining(30 * 86400 - 3600), '29 d 23 h');
});

test('only who waits is told for how long', () => {
  assert.equal(state(cluster({ state: 'queued' }), 174), 'queued 1:14');
  assert.equal(state(cluster(), 174), 'ready');
});

test('facts: what is waited for, what there is, what the user should do', () => {
  assert.deepEqual(facts(cluster()), ['1 worker, 8 cores']);
  const busy = { workers: 2, cores: 16, tasks: { processing: 3, memory: 9, waiting: 12000 } };
  assert.deepEqual(facts(cluster({ counts: busy, notices: { idle: 'ends at 14:05' } })), [
    '2 workers, 16 cores',
    '3 processing, 12,000 waiting',
    'ends at 14:05'
  ]);
  assert.deepEqual(facts(cluster({ state: 'queued', detail: '3rd in its partition' })), ['3rd in its partition']);
});

test('each further job is a node', () => {
  assert.equal(nodes(cluster({ jobs: [] })), 2);
  assert.equal(nodes(cluster({ jobs: [{}, {}, {}] })), 4);
});

test('the cell that attaches', () => {
  assert.equal(code(cluster()), '%load_ext hpcnb\n%hpc attach fit');
});

test('a queue in numbers, and a task of somebody else in one harmless line', () => {
  const ntasks = { Waiting: 0, Pending: 3, Running: 0, Succeeded: 7, Failed: 1, Killed: 0 };
  assert.deepEqual(tally({ name: 'q', state: 'Active', ntasks }), [['Succeeded', 7], ['Failed', 1], ['Pending', 3]]);
  assert.equal(visible('a\u001b[31m\nb\u202e'), 'a␛[31m␊b\ufffd');
  assert.equal(visible('x'.repeat(300)).length, 201);
});

test('work in progress', () => {
  const group = { id: 'g', label: 'fit', waiting: 900, running: 8, done: 1200, failed: 0, cancelled: 0, rate: 40.5 };
  assert.equal(progress(group), '1,200 of 2,108 done, 8 running, 40.5 a second');
  assert.equal(progress({ ...group, running: 0, failed: 2, rate: 0 }), '1,200 of 2,102 done, 2 failed');
});
