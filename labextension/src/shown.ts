/** What a cell shows, made from the messages of its kernel: as JupyterLab does for cells that were run on this page. */

export interface IMessage {
  type: string;
  content: any;
}

/** Of JupyterLab's `IOutputAreaModel`, what is needed here. */
export interface IOutputs {
  readonly length: number;
  add(output: any): number;
  set(index: number, output: any): void;
  clear(wait?: boolean): void;
}

export class Shown {
  constructor(private _outputs: IOutputs) {}

  add({ type, content }: IMessage): void {
    const { transient, ...rest } = content;
    const name: string | undefined = transient?.display_id;
    if (this._outputs.length < this._length) {
      this._displays.clear(); // the user has cleared them
    }
    switch (type) {
      case 'clear_output':
        this._outputs.clear(content.wait);
        this._clears = content.wait;
        if (!this._clears) {
          this._displays.clear();
        }
        break;
      case 'update_display_data':
        for (const index of this._displays.get(name!) ?? []) {
          this._outputs.set(index, { ...rest, output_type: 'display_data' });
        }
        break;
      default:
        if (this._clears) {
          this._clears = false;
          this._displays.clear();
        }
        this._outputs.add({ ...rest, output_type: type });
        if (name) {
          this._displays.set(name, [...(this._displays.get(name) ?? []), this._outputs.length - 1]);
        }
    }
    this._length = this._outputs.length;
  }

  private _displays = new Map<string, number[]>();
  private _clears = false;
  private _length = 0;
}
