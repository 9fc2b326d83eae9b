/** What may be asked for when jobs are to drain a queue, and the request that follows from what was typed: pure. */

export type Shape = 'jobs' | 'pack' | 'core_hours';

export interface IField {
  key: string;
  label: string;
  hint: string;
  number?: boolean;
}

export const SHAPES: { [shape in Shape]: { label: string; fields: IField[] } } = {
  jobs: {
    label: 'jobs of one worker',
    fields: [
      { key: 'jobs', label: 'Jobs', hint: '1', number: true },
      { key: 'queued', label: 'Waiting at most', hint: 'all', number: true }
    ]
  },
  pack: {
    label: 'one job of several workers',
    fields: [
      { key: 'jobs', label: 'Workers', hint: '1', number: true },
      { key: 'nodes', label: 'Nodes', hint: '1', number: true }
    ]
  },
  core_hours: {
    label: 'one job of so many core-hours',
    fields: [
      { key: 'core_hours', label: 'Core-hours', hint: '400', number: true },
      { key: 'nodes', label: 'Nodes at most', hint: 'what the site has', number: true }
    ]
  }
};

const EACH: IField[] = [
  { key: 'walltime', label: 'Walltime', hint: '1h' },
  { key: 'partition', label: 'Partition', hint: 'default' },
  { key: 'account', label: 'Account', hint: 'default' },
  { key: 'script', label: 'Script', hint: 'analyze -a {a}' }
];
const SLURM = ['partition', 'account'];
/** What only a batch system has. */
const WISHES = ['nodes', 'walltime', 'partition', 'account'];

type Typed = { [key: string]: string };

export const fields = (shape: Shape, slurm: boolean): IField[] => [
  ...SHAPES[shape].fields,
  ...EACH.filter(({ key }) => slurm || !SLURM.includes(key))
];

/** What was typed into the fields that can be seen. */
export const seen = (shape: Shape, slurm: boolean, typed: Typed): Typed =>
  Object.fromEntries(fields(shape, slurm).flatMap(({ key }) => (typed[key] ? [[key, typed[key]]] : [])));

/** The body of the request. */
export function request(shape: Shape, slurm: boolean, typed: Typed): object {
  const given = fields(shape, slurm)
    .filter(({ key }) => typed[key])
    .map(({ key, number }): [string, string | number | undefined] => [key, number ? Number(typed[key]) : typed[key]]);
  const wishes = Object.fromEntries(given.filter(([key]) => WISHES.includes(key)));
  const others = Object.fromEntries(given.filter(([key]) => !WISHES.includes(key)));
  return { ...others, ...(shape === 'pack' ? { pack: true } : {}), wishes };
}
